"""Look at sounds before anything is trained: pictures, a page to listen to, a table of clips."""

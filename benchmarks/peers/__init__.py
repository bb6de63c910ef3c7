"""What the project is compared with: a file a peer, each a list of cases; missing ones say why."""

// The list of clips: what a cell of the matrix holds, sorted by a column.
(() => {
  const { labels, clips } = JSON.parse(document.getElementById("clip-data").textContent);
  const rows = document.getElementById("rows");
  const shown = document.getElementById("shown");
  const keys = {
    path: (clip) => clip.path,
    true: (clip) => labels[clip.true],
    said: (clip) => labels[clip.said],
    sure: (clip) => clip.top[0][1],
  };
  const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
  const state = { keep: (clip) => clip.true !== clip.said, what: "mistakes", key: "sure", down: true };

  const cell = (row, text, kind) => {
    const place = row.insertCell();
    place.textContent = text;
    if (kind) place.className = kind;
    return place;
  };
  const draw = () => {
    const key = keys[state.key];
    const kept = clips.filter(state.keep).sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    if (state.down) kept.reverse();
    rows.replaceChildren();
    for (const clip of kept) {
      const row = rows.insertRow();
      cell(row, clip.path, "path");
      cell(row, labels[clip.true]);
      const next = document.createElement("div");
      next.className = "quiet";
      next.textContent = clip.top.slice(1).map(([n, share]) => `${labels[n]} ${percent(share)}`).join(", ");
      cell(row, labels[clip.said], clip.true === clip.said ? "" : "miss").append(next);
      cell(row, percent(clip.top[0][1]));
      if (document.querySelector(".list thead th:nth-child(5)")) {
        const place = row.insertCell();
        if (clip.audio) {
          const player = document.createElement("audio");
          player.controls = true;
          player.preload = "none";
          player.src = clip.audio;
          player.setAttribute("aria-label", clip.path);
          place.append(player);
        }
      }
    }
    shown.textContent = `${kept.length} of ${clips.length} clips: ${state.what}`;
    for (const button of document.querySelectorAll(".matrix button, .filter")) {
      button.setAttribute("aria-pressed", String(button === state.button));
    }
    for (const button of document.querySelectorAll(".sort")) {
      const order = button.dataset.key !== state.key ? "none" : state.down ? "descending" : "ascending";
      button.closest("th").setAttribute("aria-sort", order);
    }
  };
  for (const button of document.querySelectorAll(".matrix button")) {
    button.addEventListener("click", () => {
      const [isTrue, said] = [Number(button.dataset.true), Number(button.dataset.said)];
      Object.assign(state, {
        button,
        keep: (clip) => clip.true === isTrue && clip.said === said,
        what: `${labels[isTrue]}, said to be ${labels[said]}`,
      });
      draw();
      document.getElementById("clips").scrollIntoView({ block: "nearest" });
    });
  }
  for (const button of document.querySelectorAll(".filter")) {
    const isAll = button.dataset.show === "all";
    const choose = () => {
      const keep = isAll ? () => true : (clip) => clip.true !== clip.said;
      Object.assign(state, { button, keep, what: isAll ? "all" : "mistakes" });
      draw();
    };
    button.addEventListener("click", choose);
    if (!isAll) state.button = button;
  }
  for (const button of document.querySelectorAll(".sort")) {
    button.addEventListener("click", () => {
      const { key } = button.dataset;
      Object.assign(state, { down: state.key === key && !state.down, key });
      draw();
    });
  }
  draw();
})();

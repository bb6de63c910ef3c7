// Draws every chart in the page's colours, again when the system turns dark or light.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = (place) => {
    place.figure ??= JSON.parse(place.querySelector("script").textContent);
    const style = getComputedStyle(document.body);
    const ink = style.getPropertyValue("--quiet").trim();
    const grid = style.getPropertyValue("--line").trim();
    const { data, layout } = structuredClone(place.figure);
    const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, fixedrange: true };
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    layout.font = { color: ink, family: style.fontFamily, size: 12 };
    layout.xaxis = { ...axis, ...layout.xaxis };
    layout.yaxis = { ...axis, ...layout.yaxis };
    Plotly.react(place, data, layout, { responsive: true, displayModeBar: false });
  };
  const drawAll = () => document.querySelectorAll(".chart").forEach(draw);
  dark.addEventListener("change", drawAll);
  drawAll();
})();

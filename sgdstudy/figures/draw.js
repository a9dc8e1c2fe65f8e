// Draws the charts of a page, each when it comes near to the window; their pictures stand until then.
// A chart is a .chart with an img, a div to draw in, and a script of type application/json.
// plotly.js lies in the page deflated, in base64, as the text of #plotly.
(() => {
  "use strict";
  const LEAST = 330, SHARED = 270; // pixels of a panel beside another one; with its vertical axis
  const TALL = 220, BETWEEN = 92; // pixels of a panel below another one; axis and title between
  const LETTER = 8; // pixels, about
  const nonce = document.currentScript.nonce;
  let plotly;

  const unpacked = async () => {
    const text = document.getElementById("plotly").textContent.trim();
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await new Response(stream).text();
    document.head.append(script); // it runs at once
    return window.Plotly;
  };

  const wrapped = (text, letters) => {
    const rows = [""];
    for (const word of text.split(" ")) {
      if (rows.at(-1) && (rows.at(-1) + word).length > letters) rows.push("");
      rows[rows.length - 1] += (rows.at(-1) && " ") + word;
    }
    return rows.join("<br>");
  };

  // Panels that stand side by side on a wide page stand below each other on a narrow one.
  const stacked = (layout, panels, names, width) => {
    const own = structuredClone(layout);
    const whole = panels * TALL + (panels - 1) * BETWEEN;
    let name = "";
    for (let i = 0; i < panels; i++) {
      const [x, y] = ["xaxis", "yaxis"].map((axis) => own[axis + (i ? i + 1 : "")]);
      const bottom = (panels - 1 - i) * (TALL + BETWEEN);
      name = y.title?.text || name; // that of its left holds for it
      const words = wrapped(x.title?.text || "", (width - 80) / LETTER);
      Object.assign(x, { domain: [0, 1], title: { ...x.title, text: words, standoff: 6 } });
      Object.assign(y, { domain: [bottom / whole, (bottom + TALL) / whole], showticklabels: true });
      y.title = { ...y.title, text: wrapped(name, TALL / LETTER) };
    }
    for (const note of own.annotations ?? []) { // a long title of a panel beside a name of two rows
      if (note.text.length * LETTER > width - 130) note.font = { ...note.font, size: 12 };
    }
    own.height = whole + own.margin.t + own.margin.b + 28 * names; // of the legend
    own.margin.r = 8;
    return own;
  };

  // A page that follows a dark screen has light words, and lines that keep their hues, on its own ground.
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const follows = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  const GROUND = 0x1e, INK = "#e4e7eb", SOFT = "#a5adb8", GRID = "#363c45";
  const mixed = (color, with_, share) => /^#[0-9a-f]{6}$/i.test(color ?? "") ? "#" + [1, 3, 5].map((i) => {
    const part = parseInt(color.slice(i, i + 2), 16);
    return Math.round(part + (with_ - part) * share).toString(16).padStart(2, "0");
  }).join("") : color;
  const inDark = (data, layout) => {
    for (const { line, marker } of data) {
      for (const part of [line, marker]) { // dashed: what theory expects, which stands back
        if (part?.color) part.color = line?.dash ? mixed(part.color, GROUND, 0.5) : mixed(part.color, 255, 0.3);
        if (part?.color === mixed("#222222", 255, 0.3)) part.color = INK;
      }
    }
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
    layout.font = { ...layout.font, color: INK };
    for (const name of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      Object.assign(layout[name], { gridcolor: GRID, linecolor: SOFT, tickcolor: SOFT, zerolinecolor: GRID });
    }
    for (const note of layout.annotations ?? []) if (note.font?.color) note.font.color = SOFT;
    for (const shape of layout.shapes ?? []) if (shape.line) shape.line.color = SOFT;
  };

  const draw = async (chart) => {
    plotly ??= unpacked();
    const { data, layout } = JSON.parse(chart.querySelector("script").textContent);
    const finger = matchMedia("(pointer: coarse)").matches;
    if (finger) layout.dragmode = false; // it scrolls the page
    const place = chart.querySelector("div");
    const library = await plotly;
    chart.classList.add("drawn");
    const buttons = finger ? { displayModeBar: false } : { displaylogo: false };
    const panels = Object.keys(layout).filter((name) => name.startsWith("xaxis")).length;
    const names = data.filter((trace) => trace.showlegend).length;
    const least = (layout.yaxis2?.matches ? SHARED : LEAST) * Math.max(panels, 1.3);
    const narrow = () => place.clientWidth < least;
    const show = (below) => {
      const lines = structuredClone(data);
      const own = below ? stacked(layout, panels, names, place.clientWidth) : structuredClone(layout);
      own.uirevision = "kept"; // what was hidden or zoomed
      if (follows && scheme.matches) inDark(lines, own);
      return library.react(place, lines, own, { responsive: true, ...buttons });
    };
    let below = narrow();
    await show(below);
    addEventListener("resize", () => {
      if (narrow() !== below) show(below = !below);
    });
    scheme.addEventListener("change", () => show(below));
  };

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target).catch((error) => {
        entry.target.classList.remove("drawn"); // its picture stands
        console.warn("the chart is not drawn:", error);
      });
    }
  }, { rootMargin: "400px" });
  for (const chart of document.querySelectorAll(".chart")) seen.observe(chart);
})();

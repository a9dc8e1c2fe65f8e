// Draws the charts of a page, each when it comes near to the window; their pictures stand until then.
// A chart is a .chart with an img, a div to draw in, and a script of type application/json.
// plotly.js lies in the page deflated, in base64, as the text of #plotly.
(() => {
  "use strict";
  const LEAST = 330, SHARED = 270; // pixels of a panel beside another one; with its vertical axis
  const TALL = 220, BETWEEN = 92; // pixels of a panel below another one; axis and title between
  const LETTER = 7.5; // pixels, about
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
      y.title = { ...y.title, text: name };
    }
    own.height = whole + own.margin.t + own.margin.b + 28 * names; // of the legend
    own.margin.r = 8;
    return own;
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
    const show = (below) => library.react(
      place, data, below ? stacked(layout, panels, names, place.clientWidth) : structuredClone(layout),
      { responsive: true, ...buttons });
    let below = narrow();
    await show(below);
    addEventListener("resize", () => {
      if (narrow() !== below) show(below = !below);
    });
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

// Draws the charts of a page, each when it comes near to the window; their pictures stand until then.
// A chart is a .chart with an img, a div to draw in, and a script of type application/json.
// plotly.js lies in the page deflated, in base64, as the text of #plotly.
(() => {
  "use strict";
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

  const draw = async (chart) => {
    plotly ??= unpacked();
    const { data, layout } = JSON.parse(chart.querySelector("script").textContent);
    const finger = matchMedia("(pointer: coarse)").matches;
    if (finger) layout.dragmode = false; // it scrolls the page
    const place = chart.querySelector("div");
    const library = await plotly;
    chart.classList.add("drawn");
    const buttons = finger ? { displayModeBar: false } : { displaylogo: false };
    await library.newPlot(place, data, layout, { responsive: true, ...buttons });
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

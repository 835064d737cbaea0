/* Loaded before require.js: tells it and the widget manager where the local copies lie, and lets the manager, which
   speaks to MathJax 2, typeset with MathJax 3. */
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "widgets/");
  const manager = "@jupyter-widgets/html-manager";
  window.require = { paths: { [manager]: here + "embed-amd", [manager + "/dist/libembed-amd"]: here + "embed-amd" } };
  window.__jupyter_widgets_assets_path__ = here;
  const translate = () => {
    const mathjax = window.MathJax;
    if (mathjax && !mathjax.Hub) {
      mathjax.Hub = { Queue: ([, , element]) => mathjax.typesetPromise && mathjax.typesetPromise([element]).catch(() => {}) };
    }
  };
  translate();
  document.addEventListener("DOMContentLoaded", translate); // by now the deferred MathJax is there
})();

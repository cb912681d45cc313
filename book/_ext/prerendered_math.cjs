// Reads {tex, display} as lines of JSON and answers each with {html} or {error}.
const folder = process.argv[2];
const readline = require("node:readline");

const options = {
  loader: { load: ["input/tex-full", "output/svg", "adaptors/liteDOM", "a11y/assistive-mml"] },
  tex: {
    // Without these two an unknown macro is an error, as it should be, and not red text.
    packages: { "[-]": ["noerrors", "noundefined"] },
    formatError: (_jax, error) => { throw error; },
  },
  svg: { fontCache: "none" },
  startup: { typeset: false },
};

// What HTML implies or _static/policyopt.css says once for all formulas: a third of the bytes.
const redundant = new RegExp(
  ' (data-(mml-node|mjx-texclass)|xmlns|role|focusable|unselectable|stroke|fill|class|jax)="[^"]*"'
  + '| stroke-width="0"| style="position: relative;"', "g");

// MathJax logs to stdout that a component carries no version; stdout is for the answers.
console.log = console.info = console.warn = () => {};

require(`${folder}/node-main.js`).init(options).then((MathJax) => {
  const adaptor = MathJax.startup.adaptor;
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const { tex, display } = JSON.parse(line);
    let answer;
    try {
      const html = adaptor.outerHTML(MathJax.tex2svg(tex, { display }));
      answer = { html: html.replace(redundant, "") };
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  });
});

// One example side by side: a column per method and source, a row per step and seed.
"use strict";

const MARKED = /(<\/?(?:think|answer)>)/g;

/** A completion with its tags marked; whatever else looks like markup stays text. */
function completionText(text) {
  if (text === null) return element("p", { className: "note" }, "No text on record, only the verdict.");
  const node = element("p", { className: "completion" });
  let inside = "";
  text.split(MARKED).forEach((part) => {
    const tag = /^<(\/?)(think|answer)>$/.exec(part);
    if (tag) {
      node.append(element("span", { className: "tag" }, part));
      inside = tag[1] ? "" : tag[2];
    } else if (part) node.append(element("span", { className: inside }, part));
  });
  return node;
}

function badge(className, text) {
  return element("span", { className: `badge ${className}` }, text);
}

/** Verdict, extracted answer and rewards of one completion. */
function judgement(row, rows) {
  const facts = [row.right ? badge("right", "✓ right") : badge("wrong", "✗ wrong"),
    row.format ? badge("formed", "in format") : badge("unformed", "not in format")];
  if (row.extracted !== null) facts.push(element("span", {}, "extracted ", element("b", {}, row.extracted)));
  else if (rows.kind !== "rollouts" && row.text !== null) facts.push(element("span", {}, "nothing extracted"));
  if (row.reward !== null) facts.push(element("span", {}, `reward ${row.reward}`));
  if (row.accuracy !== null) facts.push(element("span", {}, `accuracy reward ${row.accuracy}`));
  facts.push(element("span", {}, `format reward ${row.format}`));
  if (row.advantage !== null) facts.push(element("span", {}, `advantage ${row.advantage}`));
  return element("p", { className: "facts" }, ...facts);
}

/** The picture of an example, filled in when its page of pictures is unpacked. */
function pictureOf(collection, example) {
  if (!example.picture) return element("p", { className: "nopicture note" }, example.reason ?? "No picture.");
  const [page, place] = example.picture;
  const image = element("img", { className: "picture", alt: `Picture of ${example.id}`, width: 112, height: 112 });
  unpack(`pictures:${collection.key}:${page}`).then((pictures) => { image.src = `data:image/webp;base64,${pictures[place]}`; });
  return image;
}

const lineOf = (run) => (run.source === null ? run.label : `${run.label}, trained on ${run.source}`);
const whenOf = (row) => (row.step < 0 ? "after training" : row.step === 0 ? "before training" : `after ${row.step} steps`);

class Compare {
  constructor(dialog) {
    this.dialog = dialog;
    dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.target.closest("select, .scroll")) return;
      event.preventDefault();
      this.#go(by);
    });
  }

  open(rows, example) {
    this.rows = rows;
    this.order = distinct(rows.all.map((row) => row.example));
    this.example = example;
    // Steps are compared within one run; across seeds on request.
    const seeds = distinct(rows.all.filter((row) => row.step >= 0 && row.run.seed !== null).map((row) => row.run.seed));
    this.seed = seeds.length ? Math.min(...seeds) : null;
    this.#draw();
    this.dialog.showModal();
    this.dialog.querySelector(".close").focus();
  }

  #go(by) {
    const at = this.order.indexOf(this.example) + by;
    if (at < 0 || at >= this.order.length) return;
    this.example = this.order[at];
    this.#draw();
  }

  #draw() {
    const about = this.rows.examples[this.example];
    const mine = this.rows.all.filter((row) => row.example === this.example);
    const seeds = distinct(mine.map((row) => row.run.seed).filter((seed) => seed !== null)).sort((a, b) => a - b);
    if (this.seed !== null && !seeds.includes(this.seed)) this.seed = null;
    const kept = mine.filter((row) => this.seed === null || row.run.seed === null || row.run.seed === this.seed);
    const button = (text, label, onClick, className = "") => {
      const node = element("button", { type: "button", className, title: label }, text);
      node.setAttribute("aria-label", label);
      node.addEventListener("click", onClick);
      return node;
    };
    const pick = choice("compare-seed", "Seed", [["", "all"], ...seeds.map((seed) => [seed, seed])], (value) => {
      this.seed = value === "" ? null : Number(value);
      this.#draw();
    });
    pick.querySelector("select").value = this.seed ?? "";
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.className : "";
    this.dialog.replaceChildren(
      element("div", { className: "bar" }, button("←", "Previous example", () => this.#go(-1), "previous"),
        button("→", "Next example", () => this.#go(1), "next"), pick,
        button("Close", "Close", () => this.dialog.close(), "close")),
      element("div", { className: "asked" }, pictureOf(this.rows.collection, about),
        element("div", {}, element("h3", { id: "compare-title" }, about.question ?? "The question is not on record."),
          element("p", {}, "Answer: ", element("b", {}, about.solution ?? "not on record")),
          element("p", { className: "note" }, about.id))),
      this.#table(kept));
    if (["previous", "next", "close"].includes(focused)) this.dialog.querySelector(`.${focused}`).focus();
  }

  #table(mine) {
    const lines = distinct(mine.map((row) => lineOf(row.run)));
    const key = (row) => `${row.step < 0 ? "" : whenOf(row)}|${row.run.seed ?? ""}`;
    mine.sort((a, b) => a.step - b.step || (a.run.seed ?? -1) - (b.run.seed ?? -1));
    const head = element("tr", {}, element("th", { scope: "col" }, "steps, seed"), ...lines.map((line) => {
      const run = mine.find((row) => lineOf(row.run) === line).run;
      return element("th", { scope: "col" }, swatch(index.colors[run.method]), line);
    }));
    const body = distinct(mine.map(key)).map((name) => {
      const [when, seed] = name.split("|");
      const label = [when, seed === "" ? "no seed" : `seed ${seed}`].filter(Boolean).join(", ");
      return element("tr", {}, element("th", { scope: "row" }, label), ...lines.map((line) => {
        const cell = element("td", { dataset: { line } });
        mine.filter((row) => lineOf(row.run) === line && key(row) === name)
          .forEach((row) => cell.append(element("div", { className: "one" }, completionText(row.text), judgement(row, this.rows))));
        return cell;
      }));
    });
    const region = element("div", { className: "scroll", tabIndex: 0 },
      element("table", { className: "side" }, element("thead", {}, head), element("tbody", {}, ...body)));
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", "Completions side by side");
    return region;
  }
}

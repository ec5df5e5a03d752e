// The completion browser: filters over one collection at a time, a page of cards, and the way to compare.
"use strict";

const PAGE_SIZE = 10;

/** A collection's columns as rows that know their run. */
async function readRows(collection) {
  const packed = await unpack(`rows:${collection.key}`);
  const text = (number) => (number < 0 ? null : packed.texts[number]);
  const all = packed.run.map((run, at) => ({
    run: index.runs[run], step: packed.step[at], example: packed.example[at],
    text: text(packed.text[at]), extracted: text(packed.extracted[at]),
    right: packed.right[at], format: packed.format[at],
    reward: packed.reward[at], accuracy: packed.accuracy[at], advantage: packed.advantage[at],
  }));
  all.sort((a, b) => a.example - b.example || a.step - b.step);
  return { kind: collection.kind, collection, examples: packed.examples, all };
}

class Browser {
  constructor() {
    this.form = byId("filters");
    this.compare = new Compare(byId("compare"));
    this.wanted = {};
    this.kind = index.collections[0].kind;
    this.task = index.collections[0].task;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => { this.wanted = {}; this.page = 0; this.#controls(); this.#filter(); });
    this.load();
  }

  async load() {
    const tasks = index.collections.filter((one) => one.kind === this.kind).map((one) => one.task);
    if (!tasks.includes(this.task)) this.task = tasks[0];
    const collection = index.collections.find((one) => one.kind === this.kind && one.task === this.task);
    byId("count").textContent = "Unpacking…";
    const rows = await readRows(collection);
    if (collection.kind !== this.kind || collection.task !== this.task) return;
    this.rows = rows;
    this.page = 0;
    const without = collection.numTexts ? "" : " The texts are not on record here, only the verdicts.";
    byId("about").textContent = `${collection.about} ${collection.note}${without}`;
    this.#controls();
    this.#filter();
  }

  #controls() {
    const focused = document.activeElement?.name;
    const kinds = distinct(index.collections.map((one) => one.kind));
    const titles = kinds.map((kind) => [kind, index.collections.find((one) => one.kind === kind).title]);
    const tasks = index.collections.filter((one) => one.kind === this.kind).map((one) => [one.task, one.task]);
    const places = [
      choice("kind", "Completions", titles, (value) => { this.kind = value; this.load(); }),
      choice("task", "Task", tasks, (value) => { this.task = value; this.load(); }),
    ];
    places[0].querySelector("select").value = this.kind;
    places[1].querySelector("select").value = this.task;
    const values = (pick) => distinct(this.rows.all.map(pick)).filter((value) => value !== null);
    const seeds = values((row) => row.run.seed).sort((a, b) => a - b).map((seed) => [String(seed), String(seed)]);
    const steps = values((row) => row.step).filter((step) => step >= 0).sort((a, b) => a - b);
    const same = (list) => list.map((value) => [value, value]);
    const filters = [
      ["method", "Method", same(values((row) => row.run.label))],
      ["source", "Trained on", same(values((row) => row.run.source))],
      ["seed", "Seed", seeds],
      ["step", "Steps", steps.map((step) => [String(step), String(step)])],
      ["right", "Verdict", [["1", "right"], ["0", "wrong"]]],
      ["format", "Format", [["1", "in format"], ["0", "not in format"]]],
    ];
    const shown = filters.filter(([name, , options]) => options.length > (name === "step" ? 0 : 1));
    Object.keys(this.wanted).forEach((name) => {
      const options = shown.find(([other]) => other === name)?.[2] ?? [];
      if (name !== "text" && !options.some(([value]) => value === this.wanted[name])) delete this.wanted[name];
    });
    shown.forEach(([name, label, options]) => {
      const place = choice(name, label, [["", "all"], ...options], (value) => this.#want(name, value));
      place.querySelector("select").value = this.wanted[name] ?? "";
      places.push(place);
    });
    const search = element("input", { type: "search", name: "text", value: this.wanted.text ?? "" });
    search.addEventListener("input", () => this.#want("text", search.value.trim().toLowerCase()));
    places.push(element("label", {}, element("span", {}, "Text"), search), element("button", { type: "reset" }, "Clear"));
    this.form.replaceChildren(...places);
    if (focused) this.form.elements[focused]?.focus();
  }

  #want(name, value) {
    if (value === "") delete this.wanted[name];
    else this.wanted[name] = value;
    this.page = 0;
    this.#filter();
  }

  #filter() {
    const { method, source, seed, step, right, format, text } = this.wanted;
    // The untouched policy has no seed and no source; it is compared with all.
    this.found = this.rows.all.filter((row) => (method === undefined || row.run.label === method)
      && (source === undefined || row.run.source === source)
      && (seed === undefined || String(row.run.seed) === seed)
      && (step === undefined || String(row.step) === step)
      && (right === undefined || String(row.right) === right)
      && (format === undefined || String(row.format) === format)
      && (text === undefined || `${row.text ?? ""}\n${this.rows.examples[row.example].question ?? ""}`.toLowerCase().includes(text)));
    this.#draw();
  }

  #draw() {
    const num = this.found.length;
    const share = (key) => `${(100 * this.found.filter((row) => row[key]).length / num).toFixed(1)} %`;
    const from = this.page * PAGE_SIZE;
    const shown = this.found.slice(from, from + PAGE_SIZE);
    byId("count").textContent = num === 0 ? "No completion is like this." :
      `${from + 1} to ${from + shown.length} of ${num} completions: ${share("right")} right, ${share("format")} in format.`;
    byId("list").replaceChildren(...shown.map((row) => this.#card(row)));
    ["pager-top", "pager-bottom"].forEach((id) => byId(id).replaceChildren(...this.#pager(num)));
  }

  #pager(num) {
    const last = Math.max(Math.ceil(num / PAGE_SIZE) - 1, 0);
    const turn = (text, page, name) => {
      const button = element("button", { type: "button", disabled: page < 0 || page > last, name }, text);
      button.addEventListener("click", () => {
        const pager = button.parentElement;
        this.page = page;
        this.#draw();
        const again = pager.querySelector(`[name=${name}]`);
        (again.disabled ? pager.querySelector("button:enabled") : again)?.focus();
      });
      return button;
    };
    return [turn("Previous", this.page - 1, "previous"),
      element("span", {}, `page ${this.page + 1} of ${last + 1}`), turn("Next", this.page + 1, "next")];
  }

  #card(row) {
    const about = this.rows.examples[row.example];
    const open = element("button", { type: "button", className: "open" }, "Side by side");
    open.setAttribute("aria-label", `Side by side: ${about.id}`);
    open.addEventListener("click", () => this.compare.open(this.rows, row.example));
    const who = [lineOf(row.run), row.run.seed === null ? null : `seed ${row.run.seed}`, row.step < 0 ? null : whenOf(row)];
    return element("li", {}, pictureOf(this.rows.collection, about), element("div", {},
      element("p", { className: "who" }, swatch(index.colors[row.run.method]), who.filter(Boolean).join(", "), open),
      element("p", { className: "question" }, about.question ?? "The question is not on record.", " ",
        element("span", { className: "note" }, `Answer: ${about.solution ?? "not on record"}`)),
      completionText(row.text), judgement(row, this.rows)));
  }
}

if (index.collections.length) {
  // Nothing is unpacked before the reader comes near.
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    new Browser();
  }, { rootMargin: "400px" });
  watcher.observe(byId("completions"));
}

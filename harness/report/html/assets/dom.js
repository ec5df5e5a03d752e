// What the page's parts share: elements, packed data, colours. Text from models only ever becomes text nodes.
"use strict";

const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const index = JSON.parse(byId("index").textContent);
const parsed = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", resolve, { once: true });
});

const unpacked = new Map();

/** The JSON value that the page holds under an id, decompressed once. */
function unpack(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpackNow(id));
  return unpacked.get(id);
}

async function unpackNow(id) {
  if (!byId(id)) await parsed;
  const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const darkMode = matchMedia("(prefers-color-scheme: dark)");

/** A line's colour on the page's background: in the dark, lighter. */
function onPage(color) {
  if (!darkMode.matches) return color;
  const parts = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `rgb(${parts.map((part) => Math.round(part + (255 - part) * 0.35)).join(",")})`;
}

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Distinct values in the order of their first use. */
const distinct = (values) => [...new Set(values)];

function swatch(color) {
  const node = element("span", { className: "swatch" });
  node.style.setProperty("--method", color);
  return node;
}

/** A labelled drop-down; options are [value, text]. */
function choice(name, label, options, onChange) {
  const select = element("select", { name }, ...options.map(([value, text]) => element("option", { value }, text)));
  select.addEventListener("change", () => onChange(select.value));
  return element("label", {}, element("span", {}, label), select);
}

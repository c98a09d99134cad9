// Shows a text with what was found in it, as `show_found(element, prediction, text)`; predictions are those of the server's API.
const NS = "http://www.w3.org/2000/svg";
let number_of_pictures = 0;

const hues = new Map();
/** The hue of a label: that of its name, unless another label of the page has it; the first twelve differ by 30 degrees. */
function hue(label) {
  if (!hues.has(label)) {
    let place = 7;
    for (const c of label) place = (place * 31 + c.codePointAt(0)) >>> 0;
    const taken = new Set(hues.values()), round = Math.floor(hues.size / 12) % 2;
    place %= 12;
    for (let i = 0; i < 12 && taken.has(30 * place + 15 * round); i++) place = (place + 5) % 12;
    hues.set(label, 30 * place + 15 * round);
  }
  return hues.get(label);
}
function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}
const fixed = score => score == null ? "" : score.toFixed(2);
const section = (title, ...children) => element("section", {}, element("h2", {textContent: title}), ...children);

/** Put a text with its entities, relations, classes and records into an element; all of them are inserted as text. */
function show_found(node, found, text) {
  const shown = element("div", {className: "text", tabIndex: 0, dir: "auto", ariaLabel: "Text with entities"});
  shown.append(...marked(Array.from(text), found.entities));  // offsets count code points
  node.replaceChildren(section("Entities", shown));
  if (found.entities.length) {
    const rows = found.entities.map(one => [one.text, one.label, fixed(one.score), `${one.start}\u2013${one.end}`]);
    node.append(section("List", table(["text", "label", "score", "characters"], rows)));
  }
  if (found.relations?.length) {
    const rows = found.relations.map(one => [one.head.text, one.relation, one.tail.text, fixed(one.score)]);
    node.append(section("Relations", element("div", {className: "scroll"}, arcs(found.relations)), table(["head", "relation", "tail", "score"], rows)));
  }
  const tasks = Object.entries(found.classes ?? {});
  if (tasks.length) node.append(section("Classes", ...tasks.flatMap(([task, one]) => bars(task, one))));
  if (found.records?.length) node.append(section("Records", element("div", {className: "cards"}, ...found.records.map(card))));
}
/** The text with nested marks; an entity that crosses another one is cut where that one ends. */
function marked(characters, entities) {
  const sorted = [...entities].sort((a, b) => a.start - b.start || b.end - a.end);
  const root = {children: [], end: characters.length}, open = [root];
  let at = 0;
  const text = to => { if (to > at) open.at(-1).children.push(characters.slice(at, to).join("")); at = Math.max(at, to); };
  const close = () => {
    const {entity, children} = open.pop(), caption = `${entity.label} ${fixed(entity.score)}`;
    const mark = element("mark", {title: caption}, ...children, element("small", {textContent: caption}));
    mark.style.setProperty("--hue", hue(entity.label));
    open.at(-1).children.push(mark);
  };
  for (const entity of sorted) {
    while (open.length > 1 && open.at(-1).end <= entity.start) { text(open.at(-1).end); close(); }
    text(entity.start);
    open.push({entity, children: [], end: open.length > 1 ? Math.min(entity.end, open.at(-1).end) : entity.end});
  }
  while (open.length > 1) { text(open.at(-1).end); close(); }
  text(characters.length);
  return root.children;
}
function table(names, rows) {
  const cell = (kind, value, place) =>
    element(kind, {textContent: value, className: ["score", "characters"].includes(names[place]) ? "number" : ""});
  const line = (kind, values) => element("tr", {}, ...values.map((value, place) => cell(kind, value, place)));
  return element("div", {className: "scroll"}, element("table", {}, line("th", names), ...rows.map(row => line("td", row))));
}
/** Relations as arcs between their ends, which stand in the order of the text. */
function arcs(relations) {
  const key = end => `${end.start} ${end.end}`;
  const ends = new Map(relations.flatMap(one => [one.head, one.tail]).map(end => [key(end), end]));
  const used = [...ends.values()].sort((a, b) => a.start - b.start || a.end - b.end);
  const width = text => Math.min(text.length, 28) * 7.5 + 24, middles = {};
  let x = 0;
  for (const end of used) { middles[key(end)] = x + width(end.text) / 2; x += width(end.text); }
  const middle = end => middles[key(end)];
  let from = 0, to = Math.max(x, 120);
  for (const one of relations) {  // a long name reaches beyond its arc
    const center = (middle(one.head) + middle(one.tail)) / 2, half = (one.relation.length + 5) * 3.8;
    [from, to] = [Math.min(from, center - half), Math.max(to, center + half)];
  }
  const reach = Math.max(...relations.map(one => Math.abs(middle(one.head) - middle(one.tail))), 60);
  const height = Math.min(reach / 3, 160) + 40, base = height - 26;
  const svg = (name, attributes, text) => {
    const node = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };
  const picture = svg("svg", {width: to - from, height, viewBox: `${from} 0 ${to - from} ${height}`, role: "img", "aria-label": "Relations as arcs"});
  const id = `tip-${number_of_pictures++}`;
  const tip = svg("marker", {id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto"});
  tip.append(svg("path", {d: "M0 0L8 4L0 8z", style: "fill: var(--accent)"}));
  picture.append(tip);
  for (const one of relations) {
    const [a, b] = [middle(one.head), middle(one.tail)], top = base - Math.min(Math.abs(a - b) / 3 + 14, 165);
    picture.append(svg("path", {d: `M${a} ${base}C${a} ${top} ${b} ${top} ${b} ${base}`, "marker-end": `url(#${id})`}),
      svg("text", {x: (a + b) / 2, y: base - 0.75 * (base - top) - 4, "text-anchor": "middle"}, `${one.relation} ${fixed(one.score)}`));
  }
  for (const end of used) {
    const short = end.text.length > 28 ? end.text.slice(0, 27) + "\u2026" : end.text;
    picture.append(svg("text", {x: middle(end), y: base + 18, "text-anchor": "middle"}, short));
  }
  return picture;
}
function bars(task, one) {
  const title = element("h3", {textContent: `${task}: ${[one.chosen ?? "none"].flat().join(", ") || "none"}`});
  return [title, ...Object.entries(one.scores).map(([label, score]) => {
    const bar = element("i");
    bar.style.width = `${100 * score}%`;
    return element("div", {className: "bar"}, element("span", {textContent: label}), element("span", {}, bar), element("span", {textContent: fixed(score)}));
  })];
}
function card(one) {
  const value = one => one == null ? "" : Array.isArray(one) ? one.map(value).join(", ") : typeof one === "object" ? one.text : String(one);
  const fields = Object.entries(one.fields).flatMap(([name, field]) =>
    [element("dt", {textContent: name}), element("dd", {textContent: value(field) || "\u2013"})]);
  return element("div", {className: "card"}, element("b", {textContent: one.name}), " ",
    element("small", {textContent: fixed(one.score)}), element("dl", {}, ...fields));
}

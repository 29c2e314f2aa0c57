// Small helpers for the page. Text from outside becomes text nodes only, never markup.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element: its properties, then its children (nodes or texts). */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A table: heads and rows of texts or nodes. The first cell of a row is its head. */
export function table(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, first),
      ...rest.map((cell) => (cell instanceof HTMLTableCellElement ? cell : element("td", {}, cell))),
    ),
  );
  return element(
    "div",
    { className: "wide", tabIndex: 0, role: "region", ariaLabel: caption },
    element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body)),
  );
}

/** Milliseconds for people. */
export function time(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
}

/** The lines of a text area that are not empty. */
export function lines(area) {
  return area.value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

/** A file as a data URL. */
export function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

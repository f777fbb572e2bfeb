// Elements of the page, made in one line: make("button", { class: "primary", onclick: start }, t("start")).
type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;

/** Functions become handlers (onclick), true an empty attribute, false and null none; texts are never read as HTML. */
export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.replace(/^on/, ""), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  append(element, ...children);
  return element;
}

export function append(element: Element, ...children: Child[]): void {
  element.append(
    ...children
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((child) => (typeof child === "number" ? String(child) : (child as Node | string))),
  );
}

/** A labelled control: its name above it. */
export function field(name: string, control: HTMLElement, note?: string): HTMLLabelElement {
  return make(
    "label",
    { class: "field" },
    make("span", { class: "name" }, name),
    control,
    note ? make("span", { class: "note" }, note) : null,
  );
}

/** A drop-down list of [value, text]. */
export function select(options: [value: string, text: string][], chosen: string, onchange: (value: string) => void) {
  const list = make("select", { onchange: () => onchange(list.value) });
  for (const [value, text] of options) list.append(make("option", { value, selected: value === chosen }, text));
  return list;
}

// Words in English and Chinese. Each panel has a table of its own: export const t = words({ start: ["Start", "开始"] }).
export type Language = "en" | "zh";

const kept = "everloop.language";
let language: Language = read();

export function currentLanguage(): Language {
  return language;
}

export function setLanguage(to: Language): void {
  language = to;
  localStorage.setItem(kept, to);
  document.documentElement.lang = to === "zh" ? "zh-CN" : "en";
}

/** t("steps", { n: 12 }) puts 12 in the place of {n}. A key that the table lacks does not compile. */
export function words<Key extends string>(table: Record<Key, readonly [english: string, chinese: string]>) {
  return (key: Key, values: Record<string, string | number> = {}): string =>
    table[key][language === "zh" ? 1 : 0].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

function read(): Language {
  const chosen = localStorage.getItem(kept);
  if (chosen === "en" || chosen === "zh") return chosen;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

// Builds the page into the Python package. The same sources give the same bytes, on any machine: a test repeats it.
// node build.mjs [FOLDER]
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../src/everloop/lab/assets"));

// Every browser that can open the page reads woff2; the two older formats would treble the size of the wheel.
const onlyWoff2 = {
  name: "only-woff2",
  setup(hooks) {
    hooks.onLoad({ filter: /katex[^/]*\.css$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(/,url\([^)]*\.(woff|ttf)\) ?format\("(woff|truetype)"\)/g, ""),
      loader: "css",
    }));
  },
};

const { metafile, outputFiles } = await build({
  absWorkingDir: here,
  entryPoints: { lab: "src/main.ts" },
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "none",
  loader: { ".woff2": "file" },
  assetNames: "fonts/[name]",
  write: false,
  metafile: true,
  plugins: [onlyWoff2],
  logLevel: "warning",
});
const files = new Map(outputFiles.map(({ path, contents }) => [relative(out, path), contents]));
for (const name of ["index.html", "favicon.svg"]) files.set(name, await readFile(join(here, name)));
files.set("LICENSES.txt", await licences(metafile));

for (const [name, contents] of files) {
  await mkdir(dirname(join(out, name)), { recursive: true });
  await writeFile(join(out, name), contents);
}
for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath, entry.name);
  if (entry.isFile() && !files.has(relative(out, path))) await rm(path);
}

// The licence of every package that is really in the bundle, and that of KaTeX's fonts, which have their own.
async function licences({ inputs }) {
  const packages = [...new Set(Object.keys(inputs).map((path) => /node_modules\/([^/]+)/.exec(path)?.[1]))];
  const texts = ["The page of `everloop lab` contains these packages and fonts, under their own licences."];
  for (const name of packages.filter(Boolean).sort()) {
    const { version, homepage } = JSON.parse(await readFile(join(here, "node_modules", name, "package.json"), "utf8"));
    const text = await readFile(join(here, "node_modules", name, "LICENSE"), "utf8");
    texts.push(`${name} ${version}${homepage ? ` (${homepage})` : ""}\n\n${text.replaceAll("\r\n", "\n").trim()}`);
  }
  if (packages.includes("katex")) texts.push(await readFile(join(here, "katex-fonts.txt"), "utf8"));
  return `${texts.map((text) => text.trim()).join(`\n\n${"-".repeat(80)}\n\n`)}\n`;
}

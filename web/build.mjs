// The page, as the gateway serves it: three files without any address of another host.
import { copyFileSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const out = here("../ray_split/devices/page");

mkdirSync(out, { recursive: true });
await build({
  entryPoints: [here("src/page.ts")],
  outfile: `${out}/app.js`,
  absWorkingDir: here("."),
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2021", "safari15.4"],
  legalComments: "eof", // TensorFlow.js' licence asks for it
  charset: "utf8",
});
for (const name of ["index.html", "style.css"]) copyFileSync(here(`src/${name}`), `${out}/${name}`);

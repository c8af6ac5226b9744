// Bundles the tests, has torch compute what they compare with, and runs them.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const wanted = process.argv.slice(2);
const names = readdirSync(here(".")).filter((name) => name.endsWith(".test.ts"));
const chosen = names.filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)));
const folder = mkdtempSync(join(tmpdir(), "ray-split-web-"));
try {
  execFileSync(process.env.PYTHON ?? "python3", [here("reference.py"), folder], { stdio: "inherit" });
  await build({
    entryPoints: chosen.map((name) => here(name)),
    outdir: join(folder, "tests"),
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    mainFields: ["module", "main"], // one copy of tfjs-core for all
    external: ["util", "crypto"],
    logLevel: "error",
    // Modules of the older kind, bundled as modules of the newer, still call require.
    banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
  });
  const files = chosen.map((name) => join(folder, "tests", name.replace(/\.ts$/, ".mjs")));
  const { status } = spawnSync(process.execPath, ["--test", "--test-concurrency=1", "--test-reporter=spec", ...files], {
    stdio: "inherit",
    env: { ...process.env, REFERENCE: folder },
  });
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}

// Builds dist/esm and dist/cjs, each with its own types.
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");

rmSync(join(root, "dist"), { recursive: true, force: true });
for (const [kind, config, type] of [
  ["esm", "tsconfig.json", "module"],
  ["cjs", "tsconfig.cjs.json", "commonjs"],
]) {
  const { status } = spawnSync(process.execPath, [tsc, "-p", config], { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  // Bundlers ask the nearest of these files what may be left out.
  writeFileSync(join(root, "dist", kind, "package.json"), `${JSON.stringify({ type, sideEffects: false })}\n`);
}

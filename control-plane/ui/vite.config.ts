import { defineConfig } from "vitest/config";

/** Node's, of which only this is used. */
declare const process: { env: Readonly<Record<string, string | undefined>> };

export default defineConfig({
  // Relative, so that the page works under any path prefix of a reverse proxy.
  base: "./",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    sourcemap: false,
    chunkSizeWarningLimit: 800,
  },
  worker: { format: "es" },
  server: { proxy: { "/api": { target: process.env["CONTROL"] ?? "http://127.0.0.1:4040", ws: true } } },
  test: { include: ["tests/**/*.test.ts"] },
});

import { defineConfig } from 'vitest/config'

const unitPackages = '{contracts,workflows,activities,workers,cli}'
/** Tests that start servers, workers and jobs: one file at a time, and a limit that only a hang reaches. */
const wholeSystem = { globalSetup: ['test/setup/bundles.ts'], fileParallelism: false, testTimeout: 900_000, hookTimeout: 900_000, teardownTimeout: 60_000 }
/** Those that wait for the system more than they compute: each file has a system of its own. */
const twoSystems = { ...wholeSystem, fileParallelism: true, maxWorkers: 2 }

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [`${unitPackages}/src/**/*.test.ts`, 'infra/**/*.test.mjs', 'test/code-lock/**/*.test.ts', 'test/bench/**/*.test.ts'],
          setupFiles: ['test/setup/fail-on-console.ts'],
          testTimeout: 20_000,
        },
      },
      { test: { name: 'replay', include: ['test/replay/**/*.test.ts'], ...wholeSystem } },
      { test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], ...twoSystems } },
      { test: { name: 'browser', include: ['test/browser/**/*.test.ts'], ...twoSystems } },
      { test: { name: 'clusters', include: ['test/clusters/**/*.test.ts'], ...wholeSystem } },
      { test: { name: 'kill', include: ['test/kill/**/*.test.ts'], ...wholeSystem } },
      { test: { name: 'chaos', include: ['test/chaos/**/*.test.ts'], env: { CPT_CHAOS_STEPS: '40' }, ...wholeSystem } },
    ],
  },
})

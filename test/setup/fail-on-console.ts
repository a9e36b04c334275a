import { afterEach, beforeEach, expect, vi } from 'vitest'

const methods = ['log', 'info', 'warn', 'error', 'debug'] as const
const printed: string[] = []

beforeEach(() => {
  printed.length = 0
  for (const method of methods) vi.spyOn(console, method).mockImplementation((...what: unknown[]) => void printed.push(`console.${method}: ${what.map(String).join(' ')}`))
})

// a warning that nobody reads hides the next one, so a test that prints fails
afterEach(() => {
  vi.restoreAllMocks()
  expect(printed).toEqual([])
})

import { expect, test } from 'vitest'
import { judgeVersion } from './versions.mjs'

test('a released CLI is judged by its own version', () => {
  expect(judgeVersion('temporal version 1.4.1 (Server 1.28.0, UI 2.39.0)').isGood).toBe(true)
  expect(judgeVersion('temporal version 1.3.0 (Server 1.27.1, UI 2.36.0)').isGood).toBe(true)
  expect(judgeVersion('temporal version 1.2.9 (Server 1.26.2, UI 2.34.0)').isGood).toBe(false)
  expect(judgeVersion('temporal version 0.13.2 (Server 1.24.2) (UI 2.27.2)').isGood).toBe(false)
})

test('a self-built CLI is judged by the server inside it', () => {
  expect(judgeVersion('temporal version 0.0.0-DEV (Server 1.31.2, UI 2.50.1)').isGood).toBe(true)
  expect(judgeVersion('temporal version 0.0.0-DEV (Server 1.27.9, UI 2.30.0)').isGood).toBe(false)
})

test('a program that is no Temporal CLI is not taken', () => {
  expect(judgeVersion('command not found').isGood).toBe(false)
})

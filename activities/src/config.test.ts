import { describe, expect, test } from 'vitest'
import { findHome, loadConfig } from './config.ts'

test('without any setting everything lies in the checkout', () => {
  const config = loadConfig({})
  expect(config.home).toBe(findHome())
  expect(config.roots).toEqual({ samples: `${config.home}/samples`, store: `${config.home}/.cpt/store` })
  expect(config.temporal).toMatchObject({ address: '127.0.0.1:7233', tls: null, apiKey: null })
})

test('roots are added by name, and may be moved', () => {
  expect(loadConfig({ CPT_HOME: '/cpt', CPT_ROOTS: '{"models": "/mnt/models", "store": "/mnt/store"}' }).roots).toEqual({ samples: '/cpt/samples', store: '/mnt/store', models: '/mnt/models' })
})

describe('an unusable value is refused by the variable’s name', () => {
  test.each([
    ['CPT_ROOTS', 'not json'],
    ['CPT_ROOTS', '["a"]'],
    ['CPT_ROOTS', '{"Bad Name": "/x"}'],
    ['CPT_ROOTS', '{"models": 7}'],
    ['CPT_SLOTS', 'many'],
    ['CPT_SLOTS', '0'],
    ['CPT_LEASE_SECONDS', '-1'],
  ])('%s=%s', (name, value) => {
    expect(() => loadConfig({ [name]: value })).toThrow(name)
  })
})

test('a job gets no secret of the worker', () => {
  const { jobEnv } = loadConfig({ PATH: '/bin', HOME: '/root', TEMPORAL_API_KEY: 'secret', AWS_SECRET_ACCESS_KEY: 'secret', CPT_ROOTS: '{}' })
  expect(jobEnv).toMatchObject({ PATH: '/bin', HOME: '/root', HF_HUB_OFFLINE: '1' })
  expect(JSON.stringify(jobEnv)).not.toContain('secret')
})

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
    ['CPT_ROOTS', '{"store": "s3://bucket/a"}'],
    ['CPT_STORE', 's3://B/x'],
    ['CPT_STORE', 's3://bucket/a/../b'],
    ['CPT_STORE', 'gs://bucket/a'],
  ])('%s=%s', (name, value) => {
    expect(() => loadConfig({ [name]: value })).toThrow(name)
  })
})

test('a job gets no secret of the worker', () => {
  const { jobEnv } = loadConfig({ PATH: '/bin', HOME: '/root', TEMPORAL_API_KEY: 'secret', AWS_SECRET_ACCESS_KEY: 'secret', CPT_ROOTS: '{}' })
  expect(jobEnv).toMatchObject({ PATH: '/bin', HOME: '/root', HF_HUB_OFFLINE: '1' })
  expect(JSON.stringify(jobEnv)).not.toContain('secret')
})

test('a job gets the endpoint of label-topics where there is one, and an address that is none is refused', () => {
  const label = { CPT_LABEL_URL: 'https://models.example/v1', CPT_LABEL_KEY: 'secret', CPT_LABEL_CONCURRENCY: '8' }
  expect(loadConfig({ ...label, CPT_LABEL_MODEL: 'small' })).toMatchObject({ labelModel: 'small', jobEnv: label })
  expect(Object.keys(loadConfig({ CPT_LABEL_KEY: 'secret' }).jobEnv)).not.toContain('CPT_LABEL_KEY')
  expect(() => loadConfig({ CPT_LABEL_URL: 'models.example' })).toThrow('CPT_LABEL_URL')
})

test('a job is started with an allocator that keeps its memory, unless the operator says otherwise', () => {
  expect(loadConfig({}).jobEnv.GLIBC_TUNABLES).toContain('glibc.malloc.mmap_threshold=')
  expect(loadConfig({}).jobEnv.ARROW_DEFAULT_MEMORY_POOL).toBe('system')
  expect(loadConfig({ ARROW_DEFAULT_MEMORY_POOL: 'jemalloc' }).jobEnv.ARROW_DEFAULT_MEMORY_POOL).toBe('jemalloc')
  expect(loadConfig({ GLIBC_TUNABLES: 'glibc.malloc.check=3' }).jobEnv.GLIBC_TUNABLES).toBe('glibc.malloc.check=3')
})

describe('a store', () => {
  const s3 = { CPT_HOME: '/cpt', CPT_STATE: '/state', PATH: '/bin', CPT_STORE: 's3://bucket/team/a/', CPT_S3_ENDPOINT: 'http://127.0.0.1:7070', AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'hush' }

  test('in a folder is also where jobs lie, and no job hears of a bucket', () => {
    const config = loadConfig({ ...s3, CPT_STORE: '/mnt/store' })
    expect(config).toMatchObject({ roots: { store: '/mnt/store' }, s3: null, workDir: '/mnt/store' })
    expect(Object.keys(config.jobEnv).filter((name) => /AWS|S3|CPT_/.test(name))).toEqual([])
  })

  test('in a bucket is named by its address; jobs lie in the state folder and get what reaches the bucket', () => {
    const config = loadConfig({ ...s3, AWS_SESSION_TOKEN: 'token', TEMPORAL_API_KEY: 'secret' })
    expect(config.roots['store']).toBe('s3://bucket/team/a')
    expect(config.s3).toEqual({ bucket: 'bucket', prefix: 'team/a', endpoint: 'http://127.0.0.1:7070', region: 'us-east-1', credentials: { accessKeyId: 'id', secretAccessKey: 'hush', sessionToken: 'token' } })
    expect(config).toMatchObject({ workDir: '/state/work', cacheDir: '/state/cache' })
    expect(config.jobEnv).toMatchObject({ CPT_S3_ENDPOINT: 'http://127.0.0.1:7070', AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'hush', AWS_SESSION_TOKEN: 'token', CPT_CACHE: '/state/cache' })
    expect(JSON.stringify(config.jobEnv)).not.toContain('secret')
  })

  test('in a bucket may be a whole one, at AWS, with credentials of the machine', () => {
    expect(loadConfig({ CPT_HOME: '/cpt', CPT_STORE: 's3://bucket', AWS_REGION: 'eu-central-1' })).toMatchObject({ roots: { store: 's3://bucket' }, s3: { bucket: 'bucket', prefix: '', endpoint: null, region: 'eu-central-1', credentials: null } })
  })

  test.each([
    ['AWS_SECRET_ACCESS_KEY', { AWS_SECRET_ACCESS_KEY: undefined }],
    ['CPT_S3_ENDPOINT', { CPT_S3_ENDPOINT: '127.0.0.1:7070' }],
    ['CPT_STORE', { CPT_ROOTS: '{"store": "/mnt/store"}' }],
  ])('is refused by the name of %s where that does not fit', (name, over) => {
    expect(() => loadConfig({ ...s3, ...over })).toThrow(name)
  })
})

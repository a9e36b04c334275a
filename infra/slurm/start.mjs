import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePorts } from '../bootstrap/free-ports.mjs'
import { startAccounting } from './accounting.mjs'
import { daemon, systemPath } from './daemon.mjs'

/** Compressed for tests; Slurm's defaults are MessageTimeout 10, MinJobAge 300, KillWait 30, SlurmdTimeout 300. */
const quick = { MessageTimeout: 3, MinJobAge: 20, KillWait: 3, SlurmdTimeout: 20, CompleteWait: 0, InactiveLimit: 0, SchedulerParameters: 'sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0,default_queue_depth=1000' }

const configuration = ({ folder, cluster, ctldPort, nodes, partitions, settings, dbdPort }) => {
  const host = hostname()
  const user = userInfo().username
  const values = {
    ClusterName: cluster, SlurmctldHost: `${host}(127.0.0.1)`, SlurmctldPort: ctldPort, SlurmUser: user, SlurmdUser: user,
    AuthType: 'auth/munge', AuthInfo: `socket=${folder}/munge/socket`, CredType: 'cred/munge',
    // nothing listens on an address that others can reach
    CommunicationParameters: 'NoInAddrAny,NoCtldInAddrAny',
    StateSaveLocation: `${folder}/state`, SlurmdSpoolDir: `${folder}/spool/%n`,
    SlurmctldPidFile: `${folder}/slurmctld.pid`, SlurmdPidFile: `${folder}/slurmd-%n.pid`,
    ProctrackType: 'proctrack/linuxproc', TaskPlugin: 'task/none', SelectType: 'select/cons_tres', SelectTypeParameters: 'CR_CPU_Memory',
    JobAcctGatherType: 'jobacct_gather/none', SwitchType: 'switch/none', MpiDefault: 'none', ReturnToService: 2,
    // nodes of a test have more processors than the machine: jobs share what there is
    SlurmdParameters: 'config_overrides', JobRequeue: 1,
    AccountingStorageType: dbdPort === null ? 'accounting_storage/none' : 'accounting_storage/slurmdbd',
    ...(dbdPort === null ? {} : { AccountingStorageHost: '127.0.0.1', AccountingStoragePort: dbdPort, AccountingStoragePass: `${folder}/munge/socket`, AccountingStoreFlags: 'job_comment' }),
    ...quick, ...settings,
  }
  return [
    ...Object.entries(values).map(([name, value]) => `${name}=${value}`),
    ...nodes.map((n) => `NodeName=${n.name} NodeHostname=${host} NodeAddr=127.0.0.1 Port=${n.port} CPUs=${n.cpus} RealMemory=${n.memoryMiB} State=UNKNOWN`),
    ...partitions.map((p) => `PartitionName=${p.name} Nodes=${p.nodes ?? 'ALL'} State=UP ${p.options ?? ''}`.trim()),
    '',
  ].join('\n')
}

const startMunge = async (folder, env) => {
  // munge wants its socket's folder to be entered by all and its key's by nobody
  for (const [name, mode] of [['munge', 0o711], ['key', 0o700]]) {
    mkdirSync(join(folder, name))
    chmodSync(join(folder, name), mode)
  }
  writeFileSync(join(folder, 'key/key'), randomBytes(128), { mode: 0o600 })
  const munge = daemon({
    name: 'munged', program: 'munged', env, logFile: join(folder, 'munged.log'),
    args: ['--foreground', `--socket=${folder}/munge/socket`, `--key-file=${folder}/key/key`, `--pid-file=${folder}/munge/pid`, `--seed-file=${folder}/key/seed`, '--num-threads=4'],
    ready: () => existsSync(join(folder, 'munge/socket')),
  })
  await munge.start()
  return munge
}

/** Processes, job steps too, that were started on behalf of the cluster of this configuration file. */
const processesOf = (conf) =>
  readdirSync('/proc').filter((e) => /^\d+$/.test(e)).flatMap((pid) => {
    try {
      if (Number(pid) === process.pid) return []
      return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(`SLURM_CONF=${conf}`) ? [Number(pid)] : []
    } catch {
      return [] // gone, or not ours
    }
  })

const killEach = (pids) => {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch (error) {
      if (error.code !== 'ESRCH') throw error
    }
  }
}

const killAll = async (conf) => {
  for (let left = processesOf(conf); left.length > 0; left = processesOf(conf)) {
    killEach(left)
    await delay(50)
  }
}

/**
 * Starts a Slurm of this machine alone, in a temporary folder and on free ports of 127.0.0.1: munged, slurmctld and one
 * slurmd for each named node; with `accounting` also MariaDB and slurmdbd. Described in start.d.mts.
 */
export const startSlurm = async ({ nodes: names = ['n1', 'n2', 'n3'], cpus = 16, memoryMiB = 8000, partitions = [{ name: 'main', options: 'Default=YES MaxTime=INFINITE' }], settings = {}, accounting = false } = {}) => {
  const folder = mkdtempSync(join(tmpdir(), 'cpt-slurm-'))
  chmodSync(folder, 0o711)
  for (const name of ['state', 'spool', ...names.map((n) => `spool/${n}`)]) mkdirSync(join(folder, name))
  const [ctldPort, dbdPort, databasePort, ...nodePorts] = await freePorts(names.length + 3)
  const conf = join(folder, 'slurm.conf')
  const cluster = `cpt${ctldPort}`
  const env = { PATH: systemPath, HOME: folder, SLURM_CONF: conf, LANG: 'C.UTF-8' }
  const started = []
  const run = (program, args, { timeoutMs = 30_000 } = {}) =>
    new Promise((resolve) => {
      execFile(program, args, { env, timeout: timeoutMs, killSignal: 'SIGKILL' }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : (error.code ?? 1), stdout, stderr }))
    })
  const mustRun = async (program, args) => {
    const { code, stdout, stderr } = await run(program, args)
    if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr.trim() || `exit code ${code}`}`)
    return stdout
  }
  // whoever started it may be interrupted: steps of jobs outlive the daemons
  const onExit = () => killEach(processesOf(conf))
  process.once('exit', onExit)
  const stop = async () => {
    process.off('exit', onExit)
    for (const one of started.reverse()) await one.kill(one.name === 'mariadbd' ? 'SIGTERM' : 'SIGKILL')
    await killAll(conf)
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  const begin = async (one) => {
    started.push(one)
    await one.start()
    return one
  }
  try {
    const nodes = names.map((name, i) => ({ name, port: nodePorts[i], cpus, memoryMiB }))
    writeFileSync(conf, configuration({ folder, cluster, ctldPort, nodes, partitions, settings, dbdPort: accounting ? dbdPort : null }))
    const munged = await startMunge(folder, env)
    started.push(munged)
    const books = accounting ? await startAccounting({ folder, env, dbdPort, databasePort, user: userInfo().username, begin, mustRun, cluster }) : null
    const ctld = await begin(daemon({
      name: 'slurmctld', program: 'slurmctld', args: ['-D', '-f', conf], env, logFile: join(folder, 'slurmctld.log'),
      ready: async () => (await run('scontrol', ['ping'], { timeoutMs: 5_000 })).stdout.includes('is UP'),
    }))
    const slurmds = Object.fromEntries(names.map((name) => [name, daemon({
      name: `slurmd ${name}`, program: 'slurmd', args: ['-D', '-N', name, '-f', conf], env, logFile: join(folder, `slurmd-${name}.log`),
      ready: async () => /^(idle|mixed|allocated|draining|drained)$/.test((await run('sinfo', ['-h', '-N', '-n', name, '-o', '%T'], { timeoutMs: 5_000 })).stdout.trim().split('\n')[0] ?? ''),
    })]))
    await Promise.all(Object.values(slurmds).map(begin))
    return { folder, conf, cluster, env: { SLURM_CONF: conf, PATH: systemPath }, ctld, slurmds, dbd: books?.dbd ?? null, run, mustRun, processes: () => processesOf(conf), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

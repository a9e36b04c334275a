import { failures, type FailureType } from '@cpt/contracts/failures'
import type { EndRecord } from '@cpt/contracts/job'
import { readLog, type Ending, type Evidence } from './failure-evidence.ts'

/**
 * What follows from a failure class: the type a person sees, whether it counts against the budget of failures without
 * progress, and what happens next. `smaller` is another try with half the micro-batch, as long as there is one.
 */
export const failureClasses = {
  'bad-request': { type: 'BadRequest', counts: true, next: 'park' },
  'bad-data': { type: 'BadData', counts: true, next: 'park' },
  'diverged': { type: 'LossNotFinite', counts: true, next: 'park' },
  'do-not-restart': { type: 'NeedsAttention', counts: true, next: 'park' },
  'store-corrupt': { type: 'StoreCorrupt', counts: true, next: 'park' },
  'input-missing': { type: 'InputMissing', counts: true, next: 'park' },
  'gpu-memory': { type: 'OutOfMemory', counts: false, next: 'smaller' },
  'host-memory': { type: 'OutOfMemory', counts: false, next: 'smaller' },
  'disk-full': { type: 'DiskFull', counts: true, next: 'park' },
  'not-permitted': { type: 'NotPermitted', counts: true, next: 'park' },
  'environment': { type: 'EnvironmentBroken', counts: true, next: 'park' },
  'scheduler-refused': { type: 'SchedulerRefused', counts: true, next: 'park' },
  'cancelled-outside': { type: 'CancelledOutside', counts: true, next: 'park' },
  'node-lost': { type: 'NodeTrouble', counts: false, next: 'retry' },
  'peer-lost': { type: 'NodeTrouble', counts: true, next: 'retry' },
  'unreachable': { type: 'StoreUnreachable', counts: true, next: 'retry' },
  'stuck': { type: 'NoProgress', counts: true, next: 'retry' },
  'crashed': { type: 'JobCrashed', counts: true, next: 'retry' },
  'killed': { type: 'JobEnded', counts: true, next: 'retry' },
  'terminated': { type: 'JobEnded', counts: true, next: 'retry' },
  'preempted': { type: 'JobEnded', counts: false, next: 'retry' },
  'time-limit': { type: 'JobEnded', counts: false, next: 'retry' },
  'stopped': { type: 'JobEnded', counts: false, next: 'retry' },
  'orphaned': { type: 'JobEnded', counts: false, next: 'retry' },
  'superseded': { type: 'JobEnded', counts: false, next: 'retry' },
  'unknown': { type: 'JobEnded', counts: true, next: 'retry' },
} as const satisfies Record<string, { type: FailureType; counts: boolean; next: 'park' | 'retry' | 'smaller' }>
export type FailureClass = keyof typeof failureClasses

export interface Verdict {
  failureClass: FailureClass
  type: FailureType
  counts: boolean
  next: 'park' | 'retry' | 'smaller'
  /** Name of the rule that spoke. */
  rule: string
}

type Rule = readonly [name: string, test: (e: Evidence) => boolean, failureClass: FailureClass]

const ended = (...classes: EndRecord['endClass'][]) => ({ end }: Evidence): boolean => classes.includes(end.endClass)
const typed = (...types: string[]) => ({ end }: Evidence): boolean => types.includes(end.type)
const told = (what: Ending['told']) => (e: Evidence): boolean => e.told === what
const scheduler = (state: RegExp) => (e: Evidence): boolean => state.test(e.schedulerState)
const reason = (what: RegExp) => (e: Evidence): boolean => what.test(e.schedulerReason)
const signal = (...names: string[]) => (e: Evidence): boolean => e.signals.some((s) => names.includes(s))
const says = (...phrases: RegExp[]) => (e: Evidence): boolean => e.lines.some((line) => phrases.some((p) => p.test(line)))
const names = (...phrases: RegExp[]) => (e: Evidence): boolean => e.rawLines.some((line) => phrases.some((p) => p.test(line)))
const both = (...tests: Rule[1][]) => (e: Evidence): boolean => tests.every((t) => t(e))
const either = (...tests: Rule[1][]) => (e: Evidence): boolean => tests.some((t) => t(e))
const not = (test: Rule[1]) => (e: Evidence): boolean => !test(e)

const gpuMemory = says(
  /Error: (CUDA|HIP) out of memory/, /CUDA (driver )?error: out of memory/, /CUBLAS_STATUS_ALLOC_FAILED/, /\bcudaErrorMemoryAllocation\b/,
  /Cuda failure (\d+ )?'out of memory'/, /CUDA_ERROR_OUT_OF_MEMORY/, /\bNVML_ERROR_MEMORY\b/, /CUDNN_STATUS_ALLOC_FAILED/,
  /No available memory for the cache blocks/, /^Error out of memory at line/, /RESOURCE_EXHAUSTED: (Out of memory|.*allocat)/, /Free memory on device .* is less than/, /\bCUDA_OUT_OF_MEMORY\b/,
)
const kernelKilled = says(
  /oom[_-]kill/i, /Out of memory: Killed process/i, /for lack of memory/, /Memory cgroup out of memory/i, /task \d+: Out Of Memory/, /due to memory pressure/,
  /exceeded (job |step )?memory limit/i, /OOM ?Killed/, /TERM_MEMLIMIT/, /job killed: (mem|vmem) /i,
)
const allocationFailed = says(
  /\bMemoryError\b/, /\bOutOfMemoryException\b|Out of Memory Error/, /DefaultCPUAllocator: (can't allocate memory|not enough memory)/, /std::bad_alloc/, /Errno 12\] Cannot allocate memory/,
  /malloc of size \d+ failed/, /Unable to allocate [\d.]+ [KMGT]i?B/, /memory allocation of \d+ bytes failed/, /: Cannot allocate memory( \(12\))?$/, /cudaHostAlloc/,
)

/** One task failed and srun ended the others, which slurmstepd writes of as it does of a person's scancel. */
const srunEndedItsStep = ({ lines }: Evidence): boolean => {
  const cancelled = lines.findIndex((line) => /\*\*\* STEP \S+ ON \S+ CANCELLED AT /.test(line))
  const before = lines.slice(0, Math.max(0, cancelled))
  return before.some((line) => /^srun: (\S+: )*Terminating (StepId=|job step )/.test(line)) && !lines.some((line) => /\*\*\* JOB \S+ ON \S+ CANCELLED AT /.test(line))
}

/** A committed file of the store that is not there, in the words of the usual locales. */
const committedFileGone = /^(?=.*(No such file or directory|nicht gefunden|Aucun fichier|No existe el|não encontrado|Нет такого файла|没有那个文件|そのような))(?=.*(data|commits|checkpoints)\/[0-9a-f]{2}\/[0-9a-f]{8,64})/

/** The first rule that holds decides. The job's own word goes before the scheduler's, both before what a log suggests. */
export const rules: readonly Rule[] = [
  // what the job said of itself
  ['the job was told that it is not wanted any more', ended('superseded'), 'superseded'],
  ['the loss is not finite', either(ended('diverged'), typed('LossNotFinite')), 'diverged'],
  ['bytes do not match their digest', typed('StoreCorrupt'), 'store-corrupt'],
  ['the data cannot be used', ended('bad-data'), 'bad-data'],
  ['the request cannot be carried out', ended('bad-request'), 'bad-request'],
  ['the job says it is done, and nothing is committed', ended('done'), 'store-corrupt'],
  ['the job forbids another try', ended('do-not-restart'), 'do-not-restart'],
  ['nobody watched the job', ended('orphaned'), 'orphaned'],
  // what was done to it from here
  ['it stood still and was stopped', told('stuck'), 'stuck'],
  // what the scheduler says
  ['the scheduler saw it over its memory', scheduler(/^OUT_OF_ME/), 'host-memory'],
  ['the scheduler took the machine back', either(ended('preempted'), scheduler(/^(PREEMPTED|REQUEUE|REVOKED|SPECIAL_EXIT|SUSPENDED)/)), 'preempted'],
  ['the time was over', either(ended('time-limit'), scheduler(/^(TIMEOUT|DEADLINE)/)), 'time-limit'],
  ['the scheduler lost the machine', either(ended('node-lost'), scheduler(/^(NODE_FAIL|BOOT_FAIL|LAUNCH_FAILED)/), reason(/^(Prolog|NodeDown|launch_failed)/i)), 'node-lost'],
  ['the scheduler will not run it', either(
    reason(/^(QOS|Assoc|Invalid|BadConstraints|Account|PartitionTimeLimit|PartitionNodeLimit|Licenses|DependencyNeverSatisfied|ReqNodeNotAvail_Invalid)/),
    says(/Batch job submission failed/, /srun: error: Unable to (allocate resources|create step).*(Invalid|limit|not permitted|licen[cs]e)/i)), 'scheduler-refused'],
  ['it was asked to stop from here', told('stop'), 'stopped'],
  ['somebody cancelled it at the scheduler', scheduler(/^CANCELLED/), 'cancelled-outside'],
  ['slurm wrote of a time limit', says(/DUE TO TIME LIMIT/), 'time-limit'],
  ['slurm wrote of preemption', says(/DUE TO PREEMPTION/, /DUE TO JOB REQUEUE/), 'preempted'],
  ['slurm wrote of a lost machine', says(/DUE TO NODE FAILURE/, /srun: error: Node failure on/), 'node-lost'],
  ['another system wrote of a time limit', says(/job killed: walltime/i, /TERM_RUNLIMIT/, /walltime .*exceeded/i), 'time-limit'],
  ['a cloud took the machine back', says(/\bspot (instance )?(interruption|termination|reclaim)/i, /instance-action/, /preempt(ion|ible|ed)\b.*\b(notice|instance|VM|node)\b/i, /\b(instance|VM|node)\b.*\b(was|will be|being) (preempted|reclaimed)/i), 'preempted'],
  ['it obeyed a signal and left', ended('stopped'), 'stopped'],
  // what the system or a library wrote; causes before what follows from them
  ['the system gave no memory', allocationFailed, 'host-memory'],
  ['no memory on the GPU', gpuMemory, 'gpu-memory'],
  ['the kernel killed it for memory', kernelKilled, 'host-memory'],
  ['the job knows it lacks memory', typed('OutOfMemory'), 'host-memory'],
  ['the disk or quota is full', either(typed('DiskFull'), says(/No space left on device|kein Speicherplatz|Plus d.espace|No queda espacio|没有空间/, /Errno 28\]/, /Disk quota exceeded/i, /Errno 122\]/, /\bENOSPC\b/, /\(QuotaExceeded\)/, /File too large$/, /StorageFull\b/, /\bdisk (is )?full\b/i, /minimum free drive threshold/, /(not enough|insufficient) (free )?(disk|storage) space/i, /Insufficient Storage/)), 'disk-full'],
  ['slurm wrote that it was cancelled', both(says(/\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ \*\*\*/), not(srunEndedItsStep)), 'cancelled-outside'],
  ['the machine’s processor lacks an instruction', either(signal('SIGILL'), says(/Illegal instruction/)), 'environment'],
  ['the environment lacks something', either(({ end }) => end.exitCode === 126 || end.exitCode === 127, says(
    /\b(ImportError|ModuleNotFoundError):/, /error while loading shared libraries/, /version `?GLIBC\S* not found/, /undefined symbol:/, /cannot open shared object file/,
    /CUDA driver version is insufficient/, /no kernel image is available/, /not compiled with CUDA enabled/i, /NVIDIA driver on your system is too old/, /Found no NVIDIA driver/,
    /exec(utable)? format error/i, /: command not found$/, /Failed to find C(\+\+)? compiler/, /(couldn't|could not|cannot|failed to) start container|container start failed/i, /manifest (unknown|for .* not found)/i, /ImagePullBackOff|ErrImagePull/, /Unable to find image/, /could not open image/, /module\(s\) are unknown/, /can't open file .*No such file/, /bad interpreter/, /Fatal Python error: (init|Py_Initialize)/,
    /error: (unrecognized arguments|the following arguments are required|argument )/, /Too many open files/, /can't start new thread/, /was compiled using NumPy 1/,
    /numpy\.(dtype|ndarray) size changed/, /\(NoSuchBucket\)/, /libcuda\.so/)), 'environment'],
  ['a GPU is broken', says(
    /uncorrectable ECC/i, /NVRM: Xid/, /\bXid \(PCI/, /fallen off the bus/, /CUDA error: (hardware|the launch timed out|unknown error|system not yet initialized|all CUDA-capable devices are busy|no CUDA-capable device)/,
    /No CUDA GPUs are available/, /CUDA-capable device\(s\) is\/are busy or unavailable/, /NVLink.*(error|fatal)/i, /Unable to determine the device handle/, /cudaErrorECCUncorrectable/, /cudaErrorDevicesUnavailable/), 'node-lost'],
  ['the machine’s disk is broken', says(/Errno 5\]/, /Input\/output error/, /\bI\/O error, dev\b/, /(EXT4|XFS|BTRFS)\S* ?(\S+ )?error|\bDetected aborted journal|Remounting filesystem read-only/i), 'node-lost'],
  ['something is not allowed', says(
    /Errno (1|13)\] /, /Permission denied/, /PermissionError:/, /Read-only file system/, /Errno 30\]/, /Errno 12[6-9]\]/, /(ticket|key|token|credentials?) (has |have )?expired/i, /\((AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|403)\)/,
    /PermissionDeniedError|UnauthenticatedError|GatedRepoError/, /\b(401|403) (Unauthorized|Forbidden|Client Error)\b/, /access (a|to a) gated repo/i, /(AuthorizationFailure|AuthenticationFailed|AuthorizationPermissionMismatch|InvalidToken|TokenRefreshRequired)\b/, /Invalid (credentials|API key|user(name)? token)/i, /(Unable to locate|NoCredentialsError).*credentials/i), 'not-permitted'],
  ['a committed file is gone', either(says(/\(NoSuchKey\)/, /Object at location \S+ not found/, /NoSuchKey/, /\bBlobNotFound\b|specified blob does not exist/, /\b404 (GET|Not Found)\b|An error occurred \(404\)|No such object:/), names(committedFileGone)), 'input-missing'],
  ['a file cannot be read as what it is', says(
    /digest (mismatch|does not match)/i, /Error while deserializing header/, /MetadataIncompleteBuffer|HeaderTooLarge|InvalidHeaderDeserialization/, /Parquet magic bytes not found/,
    /zlib\.error: Error -3/, /Compressed file ended before/, /BadGzipFile/, /CRC check failed/, /doesn't match checksum|checksum (mismatch|does not match|failed|error)/i, /PytorchStreamReader failed|failed finding central directory|BadZipFile/, /deserialize thrift|TProtocolException|Deserializing page header failed/, /UnpicklingError|pickle data was truncated/, /unexpected end of (file|data|stream)|premature end of/i, /Corrupt (snappy|lz4|zstd|footer|page)/i), 'store-corrupt'],
  ['a loss that is no number', says(/loss scale already at minimum/i, /\bfound NaN in\b|Unexpected result nan/, /^(.*\w(Error|Exception): )?.*\b(loss|gradient|grad[_ ]?norm)\b.{0,40}\b(nan|inf|infinite|not finite|non-finite)\b/i), 'diverged'],
  ['the fabric gave another machine up', says(/Transport retry count exceeded|IBV_WC_RETRY_EXC_ERR|RNR retry count/i), 'peer-lost'],
  ['a page could not be brought in', either(signal('SIGBUS'), says(/\bBus error\b/)), 'crashed'],
  ['it crashed in native code', either(signal('SIGSEGV', 'SIGFPE'), says(/Segmentation fault/, /\bsegfault at [0-9a-f]+ ip\b|general protection fault/, /Fatal Python error: (Segmentation|Floating)/, /CUDA error: (an illegal memory access|misaligned address|an illegal instruction|unspecified launch failure)/)), 'crashed'],
  ['it was killed, nobody says why', both(signal('SIGKILL'), not(says(/Watchdog caught collective/))), 'killed'],
  ['the system or a person ended its first process', ({ end }) => ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGXCPU'].includes(end.signal ?? ''), 'terminated'],
  ['another process of the job is gone', says(
    /\bNCCL\b.*(error|timed? ?out|timeout|abort)/i, /ncclRemoteError|ncclSystemError|ncclInternalError|ncclUnhandledCudaError/, /Watchdog caught collective operation timeout/, /DistBackendError|DistNetworkError|DistStoreError/,
    /gloo\/transport/i, /Connection closed by (remote )?peer/, /Timed out waiting \d+ms for (recv|send) operation/, /TCPStore|RendezvousTimeoutError|RendezvousConnectionError|RendezvousClosedError/,
    /lost communication with a remote daemon|PMIX? ?(server|_ERR)|MPI_ERR_PROC_FAILED/, /client socket has (timed out|failed)/, /remote process exited/i, /ProcessGroup(NCCL|Gloo).*(timeout|timed out|abort)/i), 'peer-lost'],
  ['the network or the store did not answer', either(says(
    /\((SlowDown|Throttling\w*|ServiceUnavailable|InternalError|RequestTimeout|RequestTimeTooSkewed|50[0234])\)/, /\b(500 Internal Server Error|502 Bad Gateway|503 Service Unavailable|503 Slow Down|504 Gateway Time-?out|429 Too Many Requests)\b/,
    /status code: (429|5\d\d)/, /Temporary failure in name resolution/, /Name or service not known/, /\bdns error\b/i, /EndpointConnectionError|ConnectTimeoutError|ReadTimeoutError|NewConnectionError|IncompleteRead|ProtocolError|ConnectionClosedError/,
    /Errno (32|101|104|107|108|110|111|112|113|116)\]/, /client was evicted|transport endpoint shutdown/, /Connection (reset by peer|refused|timed out|aborted)/i, /(connect|read|operation|request) timed out/i, /Network is unreachable|No route to host/, /Stale file handle/, /Transport endpoint is not connected/,
    /Failed to establish a new connection/, /NETWORK_CONNECTION|curlCode: (6|7|28|35|52|55|56)\b/, /error sending request/, /ssl\.SSL\w*Error|SSLEOFError|SSLZeroReturnError/, /Max retries exceeded/, /error trying to connect/, /connection closed before message completed/), names(/^\S+: (\S+\.)?(ConnectionError|MaxRetryError)\b/), ended('again')), 'unreachable'],
  ['it aborted', either(signal('SIGABRT', 'SIGTRAP', 'SIGSYS'), says(/terminate called after throwing/, /double free or corruption|malloc\(\): |free\(\): invalid|corrupted size/)), 'crashed'],
  ['a signal from outside ended one of its processes', signal('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGXCPU'), 'terminated'],
]

/** What an end means, by the first rule that holds; unknown ends are tried again within the budget. */
export const classifyFailure = (ending: Ending): Verdict => {
  const evidence = readLog(ending)
  const [rule, failureClass] = found(rules.find(([, test]) => test(evidence)))
  const follows = failureClasses[failureClass]
  return { failureClass, rule, type: ownType(ending.end, failureClass), counts: follows.counts || staysHere(ending, failureClass), next: follows.next }
}

const found = (rule: Rule | undefined): [string, FailureClass] => rule === undefined ? ['nothing known was found', 'unknown'] : [rule[0], rule[2]]

/** A job may be more exact about what parks it than its class is: TooMuchQuarantined is bad data. */
const ownType = (end: EndRecord, failureClass: FailureClass): FailureType => {
  const { type, next } = failureClasses[failureClass]
  return next === 'park' && end.type !== 'JobEnded' && end.type in failures ? (end.type as FailureType) : type
}

/** A scheduler may give the next try another machine; here it is the same one, so a lost one counts. */
const staysHere = ({ placement }: Ending, failureClass: FailureClass): boolean => failureClass === 'node-lost' && placement.runner === 'local'

#!/bin/bash
# The batch script of every Slurm job. It is constant: values come as arguments, never as text of a script.
#   slurm_job.sh <environment> <python> <package> <nodes> <processes per node> <stage> <folder of the job>
# <environment> holds NAME=value, each ended by NUL. In an array <folder> is a file of folders, likewise, by task number.
set -uo pipefail
environment=$1 python=$2 package=$3 nodes=$4 processes=$5 stage=$6 folder=$7
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  mapfile -d '' -t folders <"$folder"
  folder=${folders[SLURM_ARRAY_TASK_ID]}
fi
cd "$package" && exec >>"$folder/log.jsonl" 2>&1 </dev/null || exit 75

# record <class> <exit code> <signal or null> <message>: the end record of a job that could not write its own, only if absent
record() {
  local draft="$folder/.tmp-end-$SLURM_JOB_ID"
  printf '{"format":"cpt-end/1","endClass":"%s","type":"JobEnded","message":"%s","exitCode":%s,"signal":%s,"progressTokens":0,"logTail":[],"wallSeconds":%d}' \
    "$1" "$4" "$2" "$3" "$SECONDS" >"$draft" && sync "$draft" && ln "$draft" "$folder/end.json" 2>/dev/null
  rm -f "$draft"
}

if [[ -e $folder/started.json ]]; then exit 94; fi
if [[ -e $folder/stop ]]; then
  record stopped null null "told to stop before it began"
  exit 0
fi

# a job sees what it was given, and what Slurm says of its allocation and devices; nothing of anyone's login
mapfile -d '' -t given <"$environment" || exit 75
kept=()
while IFS= read -r -d '' entry; do
  case $entry in
    SLURM_* | SLURMD_* | CUDA_VISIBLE_DEVICES=* | ROCR_VISIBLE_DEVICES=* | GPU_DEVICE_ORDINAL=* | ZE_AFFINITY_MASK=*) kept+=("$entry") ;;
  esac
done < <(env -0)

work=(-m cpt_ml "$stage" --request "$folder/request.json" --result "$folder/result.json")
torchrun=("$python" -m torch.distributed.run --nproc-per-node="$processes" --max-restarts=0)
if ((nodes > 1)); then
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  address=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
  rendezvous=(--nnodes="$nodes" --rdzv-backend=c10d --rdzv-endpoint="${address:-$first}:$((20000 + SLURM_JOB_ID % 20000))" --rdzv-id="$SLURM_JOB_ID")
  # the job's own NIL would reach srun too: its tasks get what this script passes on
  command=("$(command -v srun)" --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 --export=ALL "${torchrun[@]}" "${rendezvous[@]}" "${work[@]}")
else
  command=("$python" "${work[@]}")
fi

# the time limit is near: the job sees the file, saves and leaves. TERM goes to all its processes, which know what to do
trap '[[ -e $folder/stop ]] || echo time-limit >"$folder/stop"' USR2
trap : TERM
env -i "${kept[@]}" "${given[@]}" "${command[@]}" &
child=$!
# a trapped signal ends `wait`, not the child
while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done

[[ -e $folder/end.json ]] && exit "$status"
# a job that lost the start to another one has nothing to say about it
if ((status == 94)) || { [[ -e $folder/started.json ]] && ! grep -qF "\"slurmJob\": \"$SLURM_JOB_ID\"" "$folder/started.json"; }; then exit 94; fi
if ((status > 128)); then
  signal=SIG$(kill -l $((status - 128)))
  if [[ $signal == SIGTERM && -e $folder/stop ]]; then
    record stopped null "\"$signal\"" "stopped before it could save anything"
  else
    record killed null "\"$signal\"" "the process was ended by $signal"
  fi
else
  case $status in
    65) class=bad-data ;;
    75) class=again ;;
    78) class=bad-request ;;
    93) class=do-not-restart ;;
    95) class=diverged ;;
    *) class=failed ;;
  esac
  record "$class" "$status" null "the process exited with code $status"
fi
exit "$status"

#!/usr/bin/env bash
# Trains on GPUs of a SLURM cluster: writes a batch script that starts one task a GPU, and submits it.
#
# Not run on a cluster: tested by its dry run and against stand-ins only. Watch the first run.
#
#   contrib/launch/slurm.sh --nodes 2 --gpus 4 [options] -- \
#     prompt-jax train --task docstrings_iid --output /shared/out
#
#   --nodes N          default 1
#   --gpus N           of each node; default 1
#   --partition NAME   default: the cluster's
#   --time HH:MM:SS    most that it may take; default: the partition's
#   --account NAME     default: yours
#   --venv DIR         with prompt_jax and JAX for the GPUs, seen by every node; default: this checkout's .venv
#   --script FILE      where to write the batch script; default prompt_jax.sbatch
#   --dry-run          print the script, and what would be done
#
# A minute before the time is over SLURM sends SIGTERM, the run saves its state, and the job is put
# back into the queue, where it goes on.
set -euo pipefail
. "$(dirname "$0")/common.sh"

NODES=1 GPUS=1 PARTITION='' TIME='' ACCOUNT='' SCRIPT=prompt_jax.sbatch DRY_RUN=no
VENV=$(cd "$(dirname "$0")/../.." && pwd)/.venv
while [ $# -gt 0 ]; do
  case "$1" in
    --nodes | --gpus | --partition | --time | --account | --venv | --script)
      [ $# -gt 1 ] || die "$1 needs a value"
      name=${1#--} && printf -v "${name^^}" '%s' "$2" && shift 2 ;;
    --dry-run) DRY_RUN=yes && shift ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown argument $1; the command comes after --" ;;
  esac
done
for number in "$NODES" "$GPUS"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "$number is no number of nodes or GPUs"
done
[[ $PARTITION$TIME$ACCOUNT =~ ^[A-Za-z0-9:_.,-]*$ ]] || die 'a partition, time or account has an odd character'
[ $# -gt 0 ] || die 'no command: give it after --, such as -- prompt-jax train --output /shared/out'

# shellcheck disable=SC2016 # what the job knows is filled in there
batch() {
  printf '%s\n' '#!/usr/bin/env bash' '#SBATCH --job-name=prompt_jax' "#SBATCH --nodes=$NODES" \
    "#SBATCH --ntasks-per-node=$GPUS" "#SBATCH --gpus-per-node=$GPUS" \
    '#SBATCH --signal=TERM@60' '#SBATCH --requeue' '#SBATCH --output=prompt_jax-%j.log'
  [ -z "$PARTITION" ] || printf '#SBATCH --partition=%s\n' "$PARTITION"
  [ -z "$TIME" ] || printf '#SBATCH --time=%s\n' "$TIME"
  [ -z "$ACCOUNT" ] || printf '#SBATCH --account=%s\n' "$ACCOUNT"
  printf '%s\n' 'set -euo pipefail' "cd $(quoted "$PWD")" ". $(quoted "$VENV/bin/activate")" \
    '# One task a GPU, which JAX finds by SLURM_PROCID and joins; 143: stopped and saved.' \
    'code=0' "srun $(quoted "$@") || code=\$?" \
    '[ "$code" -ne 143 ] || exec scontrol requeue "$SLURM_JOB_ID"' 'exit "$code"'
}

if [ "$DRY_RUN" = yes ]; then
  batch "$@"
else
  batch "$@" > "$SCRIPT"
fi
run sbatch "$SCRIPT"

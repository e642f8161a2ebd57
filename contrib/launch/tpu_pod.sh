#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it as a queued resource, waits, installs this checkout on all
# of its hosts, runs the command on all, copies the output folder here, and deletes the slice.
#
# Not run on a cluster: tested by its dry run and against stand-ins only. Watch the first run.
#
#   contrib/launch/tpu_pod.sh --name NAME --zone ZONE --type v5litepod-16 [options] -- \
#     prompt-jax train --task docstrings_iid --output out/
#
#   --name NAME        of the slice
#   --zone ZONE        such as us-west4-a
#   --type TYPE        of the accelerator: v5litepod-16, v4-32, v6e-8, ...
#   --version VERSION  of the runtime; default v2-alpha-tpuv5-lite
#   --project PROJECT  default: gcloud's own
#   --output DIR       what to copy back, as the command names it; default out
#   --spot             cheaper, and may be taken away: the same command goes on if --keep was given
#   --keep             leave the slice there, and use it if it is there
#   --dry-run          print what would be done
#
# Needs gcloud, logged in, with quota for the slice. Model and data that are not in the checkout must
# be addresses (gs://) or tasks of the package.
set -euo pipefail
. "$(dirname "$0")/common.sh"

NAME='' ZONE='' TYPE='' VERSION=v2-alpha-tpuv5-lite PROJECT='' OUTPUT=out SPOT='' KEEP='' DRY_RUN=no
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --zone | --type | --version | --project | --output)
      [ $# -gt 1 ] || die "$1 needs a value"
      name=${1#--} && printf -v "${name^^}" '%s' "$2" && shift 2 ;;
    --spot) SPOT=yes && shift ;;
    --keep) KEEP=yes && shift ;;
    --dry-run) DRY_RUN=yes && shift ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown argument $1; the command comes after --" ;;
  esac
done
need name "$NAME" zone "$ZONE" type "$TYPE"
[ $# -gt 0 ] || die 'no command: give it after --, such as -- prompt-jax train --output out/'

WHERE=("--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"})
FOLDER=prompt_jax_run
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

remote() { # remote WORKER SHELL_LINE
  run gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" "--worker=$1" "--command=$2"
}

state() {
  gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" --format='value(state.state)'
}

# shellcheck disable=SC2329 # called when the script ends
delete() {
  run gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force --quiet
}

create() {
  run gcloud compute tpus queued-resources create "$NAME" "--node-id=$NAME" "${WHERE[@]}" \
    "--accelerator-type=$TYPE" "--runtime-version=$VERSION" ${SPOT:+--spot}
}

wait_until_active() {
  if [ "$DRY_RUN" = yes ]; then
    printf '# wait until its state is ACTIVE\n'
    return
  fi
  local now='' before=''
  until [ "$now" = ACTIVE ]; do
    now=$(state)
    [ "$now" = "$before" ] || printf '%s: %s\n' "$NAME" "$now"
    before=$now
    case "$now" in
      FAILED | SUSPENDING | SUSPENDED) die "the slice is $now; delete it and try again" ;;
      ACTIVE) ;;
      *) sleep 30 ;;
    esac
  done
}

install() {
  local archive=checkout.tar.gz
  [ "$DRY_RUN" = yes ] || archive=$(mktemp --suffix=.tar.gz)
  run git -C "$ROOT" archive --format=tar.gz "--output=$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME:$FOLDER.tar.gz" "${WHERE[@]}" --worker=all
  run rm -f "$archive"
  remote all "set -e; mkdir -p $FOLDER; tar -xzf $FOLDER.tar.gz -C $FOLDER; cd $FOLDER; \
command -v python3.11 > /dev/null || { sudo apt-get update && sudo apt-get install -y python3.11 python3.11-venv; }; \
python3.11 -m venv .venv; .venv/bin/pip install --quiet -c constraints.txt '.[tpu]'"
}

if [ -n "$KEEP" ] && [ "$DRY_RUN" = no ] && [ -n "$(state 2> /dev/null || true)" ]; then
  printf '%s is there already\n' "$NAME"
else
  create
fi
[ -n "$KEEP" ] || trap delete EXIT
wait_until_active
install
# Every host runs the same command; JAX finds the others. A failure still has its output copied.
code=0
remote all "cd $FOLDER; . .venv/bin/activate; $(quoted "$@")" || code=$?
run gcloud compute tpus tpu-vm scp --recurse "$NAME:$FOLDER/$OUTPUT" . "${WHERE[@]}" --worker=0 || code=$?
exit "$code"

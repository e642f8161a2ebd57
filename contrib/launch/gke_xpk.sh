#!/usr/bin/env bash
# Trains on a GKE cluster of TPU slices by xpk: creates the cluster if asked to, submits this checkout
# as a workload, waits until it ends, and deletes what was created.
#
# Not run on a cluster: tested by its dry run and against stand-ins only. Watch the first run.
#
#   contrib/launch/gke_xpk.sh --cluster CLUSTER --workload NAME --type v5litepod-16 [options] -- \
#     prompt-jax train --task docstrings_iid --output /mnt/bucket/out
#
#   --cluster CLUSTER  that xpk made
#   --workload NAME    of this run: lower case letters, digits, dashes
#   --type TYPE        of the slice: v5litepod-16, v4-32, v6e-8, ...
#   --zone ZONE        default: gcloud's own
#   --project PROJECT  default: gcloud's own
#   --image IMAGE      with Python 3.11 or later; default python:3.11
#   --restarts N       of a workload that ends early; it goes on where it stood; default 0
#   --create           make the cluster first, with one slice
#   --delete           delete the workload at the end, and the cluster if --create was given
#   --dry-run          print what would be done
#
# Needs xpk and gcloud, logged in. The container's disk is gone with it: let --output name a folder of
# a bucket or file system that was attached to the cluster with `xpk storage` (mounted by itself).
set -euo pipefail
. "$(dirname "$0")/common.sh"

CLUSTER='' WORKLOAD='' TYPE='' ZONE='' PROJECT='' IMAGE=python:3.11 RESTARTS=0
CREATE='' DELETE='' DRY_RUN=no
while [ $# -gt 0 ]; do
  case "$1" in
    --cluster | --workload | --type | --zone | --project | --image | --restarts)
      [ $# -gt 1 ] || die "$1 needs a value"
      name=${1#--} && printf -v "${name^^}" '%s' "$2" && shift 2 ;;
    --create) CREATE=yes && shift ;;
    --delete) DELETE=yes && shift ;;
    --dry-run) DRY_RUN=yes && shift ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    *) die "unknown argument $1; the command comes after --" ;;
  esac
done
need cluster "$CLUSTER" workload "$WORKLOAD" type "$TYPE"
[[ $WORKLOAD =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || die "--workload is $WORKLOAD; expected lower case letters, digits, dashes"
[ $# -gt 0 ] || die 'no command: give it after --, such as -- prompt-jax train --output /mnt/out'

WHERE=("--cluster=$CLUSTER" ${ZONE:+"--zone=$ZONE"} ${PROJECT:+"--project=$PROJECT"})
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

delete() {
  run xpk workload delete "--workload=$WORKLOAD" "${WHERE[@]}"
  [ -z "$CREATE" ] || run xpk cluster delete "${WHERE[@]}"
}

[ -z "$CREATE" ] || run xpk cluster create "${WHERE[@]}" "--tpu-type=$TYPE" --num-slices=1
[ -z "$DELETE" ] || trap delete EXIT
# xpk puts the checkout into the image and starts the command in it, once on every host of the slice;
# JAX finds the others.
run xpk workload create "--workload=$WORKLOAD" "${WHERE[@]}" "--tpu-type=$TYPE" --num-slices=1 \
  "--base-docker-image=$IMAGE" "--script-dir=$ROOT" "--max-restarts=$RESTARTS" \
  "--command=pip install --quiet -c constraints.txt '.[tpu]' && $(quoted "$@")"
run xpk workload list "${WHERE[@]}" "--wait-for-job-completion=$WORKLOAD"

#!/bin/bash
# Builds what the node runs into NODE_BIN, from Go modules and one C file: Kubernetes in one program, two CSI
# sidecars, helm. About 20 CPU minutes from nothing, seconds when the Go build cache is warm. Needs Go 1.26, gcc
# with a static libc, python3 and busybox-static.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/node.env"
export GOFLAGS=-buildvcs=false GOTOOLCHAIN=local
cd "$here"
mkdir -p "$NODE_BIN/images"
version=k8s.io/component-base/version
nice -n 19 go build -p 2 -trimpath -o "$NODE_BIN/k8snode" \
	-ldflags "-s -w -X $version.gitVersion=v1.36.3 -X $version.gitMajor=1 -X $version.gitMinor=36 -X $version.gitTreeState=clean" .
ln -sf k8snode "$NODE_BIN/kubectl"
for tool in csi-provisioner csi-resizer; do
	nice -n 19 go build -p 2 -trimpath -ldflags "-s -w" -o "$NODE_BIN/" "$(go list tool | grep "/$tool\$")"
done
[ -x "$NODE_BIN/helm" ] || GOBIN=$NODE_BIN nice -n 19 go install -p 2 helm.sh/helm/v3/cmd/helm@v3.21.4

gcc -Os -static -s -o "$NODE_BIN/pause" pause/pause.c
./mkimage.py "$NODE_BIN/images/pause.tar" local.test/pause:3.10 --file "$NODE_BIN/pause=/pause" --entrypoint /pause

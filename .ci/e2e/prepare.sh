# What run and measure have in common, to be sourced: reaches the cluster, and
# brings the images of carpool and of the tests' own pods to its node.

cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '\n=== %s\n' "$*"; }

if [ -n "${LAB:-}" ]; then
	export KUBECONFIG=$LAB/kubeconfig E2E_CTR="ctr -a $LAB/containerd.sock -n k8s.io"
fi
: "${KUBECONFIG:?names the cluster, or LAB}" "${E2E_CTR:?says how to reach the containerd of the node}"
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

answers() { kubectl get --raw /readyz >/dev/null 2>&1; }
if ! answers && [ -x "${LAB_SCRIPTS:-}/up.sh" ] && [ -n "${LAB:-}" ]; then
	say "cluster"
	"$LAB_SCRIPTS/up.sh" "$LAB"
fi
answers || {
	echo "e2e: no cluster answers at $KUBECONFIG" >&2
	exit 1
}
if [ -z "${GO_IMAGE:-}" ] && [ -x "${LAB_SCRIPTS:-}/golang-image.sh" ] &&
	! buildah inspect docker.io/library/golang:1.26 >/dev/null 2>&1; then
	say "image with Go"
	"$LAB_SCRIPTS/golang-image.sh" "$LAB/golang"
fi

# image NAME CONTEXT builds an image of the tests' and brings it to the node.
image() {
	local archive=../../dist/${1##*-}
	archive=${archive%:*}.tar
	buildah bud --quiet --layers --tag "$1" "$2" >/dev/null
	rm -f "$archive"
	buildah push --quiet "$1" docker-archive:"$archive":"$1"
	$E2E_CTR images import - <"$archive"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "image of carpool"
../image
$E2E_CTR images import - <../../dist/image.tar

say "image of the traffic"
mkdir "$work/traffic"
cp traffic/Dockerfile "$work/traffic"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/traffic/traffic" ./traffic
image localhost/carpool-e2e-traffic:dev "$work/traffic"

say "commands"
export GOBIN=$PWD/../../dist/bin
export PATH=$GOBIN:$PATH
(cd ../.. && go build -o "$GOBIN/carpool" ./cmd/carpool)
carpool version

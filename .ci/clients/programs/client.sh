#!/bin/sh
# The client program for curl and wget, a process per call as in a shell script;
# ../doc.go says what it does. The first argument is curl, curl--proxytunnel or wget.
set -eu
client=$1
shift
base=$1 calls=$2 tag=$3 upload_file=$4 upload_hash=$5 download_hash=$6

# Whatever the user's .curlrc or .wgetrc says, it is not tested here.
case $client in
curl)
	get() { curl -q --silent --show-error --fail-with-body "$1"; }
	post() { curl -q --silent --show-error --fail-with-body --data-binary "@$2" "$1"; }
	;;
curl--proxytunnel) # plain HTTP inside CONNECT, too
	get() { curl -q --proxytunnel --silent --show-error --fail-with-body "$1"; }
	post() { curl -q --proxytunnel --silent --show-error --fail-with-body --data-binary "@$2" "$1"; }
	;;
wget)
	ask() { wget --no-config --no-verbose --no-hsts --tries=1 --ca-certificate="$CURL_CA_BUNDLE" --output-document=- "$@"; }
	get() { ask "$1"; }
	post() { ask --post-file="$2" "$1"; }
	;;
esac

same() {
	if [ "$2" != "$3" ]; then
		echo "$1: got '$2', want '$3'" >&2
		exit 1
	fi
}

n=1
while [ "$n" -le "$calls" ]; do
	same "call $n" "$(get "$base/echo?tag=$tag&n=$n")" "$tag $n"
	n=$((n + 1))
done
same upload "$(post "$base/upload" "$upload_file")" "$upload_hash"
same download "$(get "$base/download" | sha256sum | cut -d ' ' -f 1)" "$download_hash"

#!/bin/sh
# The client program for curl, a process per call as in a shell script;
# ../doc.go says what it does.
set -eu
tunnel=
if [ "$1" = --proxytunnel ]; then # plain HTTP inside CONNECT, too
	tunnel=$1
	shift
fi
base=$1 calls=$2 tag=$3 upload_file=$4 upload_hash=$5 download_hash=$6

# -q: whatever the user's .curlrc says, it is not tested here.
# shellcheck disable=SC2086 # an option, or nothing
fetch() { curl -q $tunnel --silent --show-error --fail-with-body "$@"; }

same() {
	if [ "$2" != "$3" ]; then
		echo "$1: got '$2', want '$3'" >&2
		exit 1
	fi
}

n=1
while [ "$n" -le "$calls" ]; do
	same "call $n" "$(fetch "$base/echo?tag=$tag&n=$n")" "$tag $n"
	n=$((n + 1))
done
same upload "$(fetch --data-binary "@$upload_file" "$base/upload")" "$upload_hash"
same download "$(fetch "$base/download" | sha256sum | cut -d ' ' -f 1)" "$download_hash"

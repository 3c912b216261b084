#!/bin/sh
# Installs the Debian packages that the tests in this folder need and this
# machine lacks. Run as root.
set -eu

missing=
need() { # need PACKAGE COMMAND...: PACKAGE is missing unless COMMAND succeeds
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}

need nginx-light sh -c 'PATH=$PATH:/usr/sbin command -v nginx'
need apache2-bin sh -c 'PATH=$PATH:/usr/sbin command -v apache2'
need squid sh -c 'PATH=$PATH:/usr/sbin command -v squid'
need tinyproxy command -v tinyproxy
need puma command -v puma
need curl command -v curl
need ruby command -v ruby
need python3-venv python3 -c 'import ensurepip, venv'
need default-jdk-headless command -v javac
need npm command -v npm
need php-cli command -v php
need php-curl php -r 'exit(extension_loaded("curl") ? 0 : 1);'
need libwww-perl perl -MLWP::UserAgent -e 1
need liblwp-protocol-https-perl perl -MLWP::Protocol::https -e 1
need wget command -v wget

if [ -z "$missing" ]; then
	echo "nothing to install"
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# At run level 1 a package does not start its service: nginx is wanted as a
# program here, not on port 80.
export RUNLEVEL=1
apt-get update
# shellcheck disable=SC2086 # a list
apt-get install --yes --no-install-recommends $missing

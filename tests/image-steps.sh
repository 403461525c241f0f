#!/bin/sh
# Runs the steps of the Dockerfile's first stage, in order, in a clean tree made with debootstrap, for machines without
# a container engine; then runs the program in a tree that holds nothing else, as in the image. As root; needs
# debootstrap and the network. The toolchain is this machine's.
#
#   sh tests/image-steps.sh FOLDER
set -eu
tree=$1
[ -e "$tree/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$tree"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
if [ ! -e "$tree/usr/local/rust" ]; then
	mkdir -p "$tree/usr/local/rust"
	cp -a "$(rustc --print sysroot)/bin" "$(rustc --print sysroot)/lib" "$tree/usr/local/rust/"
fi
# What this machine trusts, in case its network has a certificate authority of its own.
cp /etc/ssl/certs/ca-certificates.crt "$tree/host-certificates.crt"
rm -rf "$tree/src" "$tree/context" "$tree/anteroom" "$tree/steps.sh"

# One instruction a line, without comments; up to the second stage.
sed '/^#/d' Dockerfile | sed -e ':join' -e '/\\$/{N;s/\\\n *//;bjoin' -e '}' | awk '/^FROM/ { stage++ } NF && stage < 2' |
	while read -r word rest; do
		case $word in
		FROM | SHELL) ;;
		WORKDIR) printf 'mkdir -p %s && cd %s\n' "$rest" "$rest" ;;
		ENV | ARG) printf 'export %s\n' "$rest" ;;
		RUN) printf '( %s )\n' "$rest" ;;
		COPY)
			# The last word is the destination, in /src.
			set -- $rest
			for last; do :; done
			while [ $# -gt 1 ]; do
				case $last in ./) into=./$1 ;; *) into=$last ;; esac
				mkdir -p "$(dirname "$tree/context/$1")"
				cp -rT "$1" "$tree/context/$1"
				printf 'mkdir -p "$(dirname %s)" && cp -rT /context/%s %s\n' "$into" "$1" "$into"
				shift
			done
			;;
		*)
			echo "unknown instruction: $word" >&2
			exit 1
			;;
		esac
	done > "$tree/steps.sh"
cat "$tree/steps.sh"
mountpoint -q "$tree/proc" || mount -t proc proc "$tree/proc"
trap 'umount "$tree/proc"' EXIT
env -i HOME=/root CARGO_HOME=/usr/local/cargo CARGO_HTTP_CAINFO=/host-certificates.crt PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	chroot "$tree" /bin/bash -o pipefail -eux /steps.sh

# The second stage: the program, certificates, and what a container engine puts beside them.
image=$tree/image
rm -rf "$image"
mkdir -p "$image/etc/ssl/certs"
cp "$tree/anteroom" "$image/anteroom"
cp "$tree/etc/ssl/certs/ca-certificates.crt" "$image/etc/ssl/certs/"
printf '127.0.0.1 localhost\n127.0.0.1 upstream.test\n' > "$image/etc/hosts"
cp /etc/resolv.conf "$image/etc/resolv.conf"
ldd "$image/anteroom" || true
size=$(stat -c %s "$image/anteroom")
echo "$size bytes"
[ "$size" -lt 30000000 ]
chroot --userspec=65532:65532 "$image" /anteroom --version

# It asks an upstream by its name: once by the table of hosts, once by DNS, without any shared library about.
stand_in=127.0.0.1:18731
target/debug/anteroom demo --no-acts --listen 127.0.0.1:0 --admin 127.0.0.1:0 --stand-in $stand_in > "$tree/demo.out" 2>&1 &
demo=$!
trap 'kill $demo 2> /dev/null || true; umount "$tree/proc"' EXIT
ask() { # UPSTREAM: prints what the program in the image answers to a request for its root
	chroot --userspec=65532:65532 "$image" /anteroom serve --upstream "$1" --listen 127.0.0.1:18732 \
		--admin 127.0.0.1:9180 > "$tree/serve.out" 2>&1 &
	serve=$!
	until chroot --userspec=65532:65532 "$image" /anteroom ready 2> /dev/null; do
		kill -0 $serve || { cat "$tree/serve.out" >&2; exit 1; }
		sleep 0.1
	done
	curl --silent --output /dev/null --write-out '%{http_code}\n' "http://127.0.0.1:18732$2"
	kill -INT $serve
	kill -INT $serve 2> /dev/null || true
	wait $serve || true
}
until list=$(grep -m1 '^list=http' "$tree/demo.out"); do
	kill -0 $demo
	sleep 0.1
done
list=${list#*://*/}
by_hosts=$(ask "http://upstream.test:${stand_in##*:}" "/$list")
# The mirror that the tree came from: a name that this network can resolve.
mirror=$(awk '$1 == "deb" { print $2; exit }' "$tree/etc/apt/sources.list")
by_dns=$(ask "${mirror%"/${mirror#*://*/}"}" "/${mirror#*://*/}/")
echo "by the table of hosts: $by_hosts, by DNS: $by_dns"
[ "$by_hosts" = 200 ]
[ "$by_dns" = 200 ]

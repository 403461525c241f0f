#!/bin/sh
# Sees to it that commands are there, each given as COMMAND:PACKAGE. Installs what is missing with apt as root, else
# names the packages and fails.
set -eu
missing=
for need in "$@"; do
	command -v "${need%%:*}" >/dev/null || missing="$missing ${need##*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	apt-get update -qq
	# Services that come with a package are not started.
	printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $missing
	rm -f /usr/sbin/policy-rc.d
else
	echo "the tests need these packages:$missing" >&2
	exit 1
fi

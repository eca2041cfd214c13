#!/bin/sh
# Gives TinyChat a renewed certificate. certbot runs this as root after each renewal, and once when it is named at
# the first issue:
#
#     certbot certonly --standalone -d chat.example.com --deploy-hook /usr/local/sbin/tinychat-deploy-hook
#
# certbot's private key may be read by root alone, and that is well. So the pair is copied to /etc/tinychat/tls,
# where the service's group may read it and nobody else may. The copy is made aside, and then takes the place of the
# one before in a single step. (If TinyChat should read one file before the step and one after, the two do not belong
# together: it keeps what it has, and loads again.) To run it by hand, or again, does no harm:
#
#     RENEWED_LINEAGE=/etc/letsencrypt/live/chat.example.com tinychat-deploy-hook
set -eu

lineage=${RENEWED_LINEAGE:?is not set: certbot sets it, by hand it is /etc/letsencrypt/live/YOUR.NAME}
tls=${TINYCHAT_TLS:-/etc/tinychat/tls}
group=${TINYCHAT_GROUP:-tinychat}
# Empty: no reload. TinyChat then notices by itself, within seconds.
reload=${TINYCHAT_RELOAD-systemctl reload tinychat}

for file in fullchain.pem privkey.pem; do
    if [ ! -s "$lineage/$file" ]; then
        echo "tinychat-deploy-hook: $lineage/$file is missing or empty: nothing was changed" >&2
        exit 1
    fi
done

# Nobody may read the key, not even for a moment.
umask 077
mkdir -p "$tls"
chgrp "$group" "$tls"
chmod 750 "$tls"

# Only one hook at a time changes the folder; the lock goes with the process.
exec 9>"$tls/.lock"
flock 9

new=$(mktemp -d "$tls/pair.XXXXXXXX")
trap 'rm -rf "$new"' EXIT
for file in fullchain.pem privkey.pem; do
    cat "$lineage/$file" >"$new/$file"
    chgrp "$group" "$new/$file"
    chmod 640 "$new/$file"
done
chgrp "$group" "$new"
chmod 750 "$new"
sync -f "$new/privkey.pem" 2>/dev/null || sync

# The step: one link is renamed over another.
before=$(readlink "$tls/live" || true)
ln -s "${new##*/}" "$new.live"
mv -T "$new.live" "$tls/live"
trap - EXIT

# Keep no keys that are not in use.
for pair in "$tls"/pair.*; do
    [ "$pair" = "$new" ] || rm -rf "$pair"
done
echo "tinychat-deploy-hook: $tls/live leads to ${new##*/} (before: ${before:-nothing})"

if [ -n "$reload" ]; then
    # A server that does not run will find the pair when it starts.
    $reload || echo "tinychat-deploy-hook: \"$reload\" failed: is the service running?" >&2
fi

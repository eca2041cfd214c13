# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tinychat_global_optspecs
    string join \n host= port= mod-password= join-password= web-ui= use-ssl= ssl-cert-path= ssl-key-path= ssl-required= log-level= database-path= history-messages= history-days= resume-seconds= max-connections= max-connections-per-ip= connect-rate= join-rate= message-rate= message-burst= max-senders-per-ip= max-message-bytes= send-queue-bytes= handshake-timeout= ping-interval= allowed-origins= trusted-proxies= metrics-allow= cluster-url= cluster-name= node-name= h/help V/version
end

function __fish_tinychat_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tinychat_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tinychat_using_subcommand
    set -l cmd (__fish_tinychat_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tinychat -n "__fish_tinychat_needs_command" -l host -d 'Address to listen on (IPv4, IPv6 or a host name) [HOST, default 127.0.0.1]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l port -d 'Port to listen on; 0 lets the system choose [PORT, default 8765]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l mod-password -d 'Password for /login, or its hash; unset: /login makes nobody a moderator [MOD_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l join-password -d 'Password for joining, or its hash; unset: anyone may join [JOIN_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l web-ui -d 'Serve the chat page to browsers [WEB_UI, default true]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l use-ssl -d 'Serve wss:// instead of ws:// [USE_SSL, default false]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l ssl-cert-path -d 'Certificate with its chain, PEM [SSL_CERT_PATH, default ./certs/server.crt]' -r -F
complete -c tinychat -n "__fish_tinychat_needs_command" -l ssl-key-path -d 'Private key, PEM [SSL_KEY_PATH, default ./certs/server.key]' -r -F
complete -c tinychat -n "__fish_tinychat_needs_command" -l ssl-required -d 'Never fall back to plaintext [SSL_REQUIRED, default false]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l log-level -d 'off, error, warn, info, debug or trace [LOG_LEVEL, default info]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_needs_command" -l history-messages -d 'Newest messages kept for the history; 0: none [HISTORY_MESSAGES, default 10000]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l history-days -d 'Days that messages are kept; 0: forever [HISTORY_DAYS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l resume-seconds -d 'How long a member whose connection was lost stays in the room; 0: not at all [RESUME_SECONDS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l max-connections -d 'Maximum number of connections [MAX_CONNECTIONS, default 4096]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l max-connections-per-ip -d 'Maximum number of connections from one address; 0: no limit; loopback is exempt [MAX_CONNECTIONS_PER_IP, default 64]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l connect-rate -d 'Sustained connections per second from one address; more wait; 0: no limit; loopback is exempt [CONNECT_RATE, default 20]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l join-rate -d 'Sustained joins per second from one address; more wait; 0: no limit; loopback is exempt [JOIN_RATE, default 1]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l message-rate -d 'Sustained messages per second from one client; 0: no limit [MESSAGE_RATE, default 5]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l message-burst -d 'Messages a client may send at once before the rate applies [MESSAGE_BURST, default 20]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l max-senders-per-ip -d 'One address may send as much as this many connections; 0: no limit; loopback is exempt [MAX_SENDERS_PER_IP, default 8]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l max-message-bytes -d 'Longest message accepted from a client [MAX_MESSAGE_BYTES, default 16384]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l send-queue-bytes -d 'Maximum number of bytes queued for one slow client [SEND_QUEUE_BYTES, default 1048576]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l handshake-timeout -d 'Time limit for TLS and the upgrade together, and for each message [HANDSHAKE_TIMEOUT, default 10]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l ping-interval -d 'Silence before a client is pinged [PING_INTERVAL, default 30]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l allowed-origins -d 'Origins that may connect, comma-separated; unset: any [ALLOWED_ORIGINS, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l trusted-proxies -d 'Networks (CIDR) whose X-Forwarded-For is trusted, comma-separated [TRUSTED_PROXIES, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l metrics-allow -d 'Networks (CIDR) that may read /metrics, in addition to loopback [METRICS_ALLOW, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l cluster-url -d 'Redis or Valkey server through which several servers form one chat [CLUSTER_URL, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l cluster-name -d 'Name of the chat, if CLUSTER_URL has several [CLUSTER_NAME, default tinychat]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -l node-name -d 'Name of this server; unset: the host name and a random suffix [NODE_NAME, unset]' -r
complete -c tinychat -n "__fish_tinychat_needs_command" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_needs_command" -s V -l version -d 'Print version'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "generate-certs" -d 'Create a self-signed certificate and key for testing'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "check" -d 'Check the settings, the certificate and the store as at startup, without listening'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "health" -d 'Ask the running server whether it is healthy; the exit status is 0 if it is, and 1 if not'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "export" -d 'Print the kept messages as JSON lines, oldest first, whether or not the server is running'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "audit" -d 'Print the audit log of moderation, oldest first, whether or not the server is running'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "hash-password" -d 'Print the hash of a password, for MOD_PASSWORD and JOIN_PASSWORD'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "moderator" -d 'Add, remove or list moderators that have a name and a password of their own'
complete -c tinychat -n "__fish_tinychat_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tinychat -n "__fish_tinychat_using_subcommand generate-certs" -l cert -d 'Where to write the certificate' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand generate-certs" -l key -d 'Where to write the private key' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand generate-certs" -l days -d 'Days until the certificate expires' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand generate-certs" -l host -d 'Host name or address of the server, in addition to localhost, 127.0.0.1 and ::1' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand generate-certs" -l force -d 'Replace existing files'
complete -c tinychat -n "__fish_tinychat_using_subcommand generate-certs" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l name -d 'Also check that the certificate is valid for this host name or address' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l host -d 'Address to listen on (IPv4, IPv6 or a host name) [HOST, default 127.0.0.1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l port -d 'Port to listen on; 0 lets the system choose [PORT, default 8765]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l mod-password -d 'Password for /login, or its hash; unset: /login makes nobody a moderator [MOD_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l join-password -d 'Password for joining, or its hash; unset: anyone may join [JOIN_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l web-ui -d 'Serve the chat page to browsers [WEB_UI, default true]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l use-ssl -d 'Serve wss:// instead of ws:// [USE_SSL, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l ssl-cert-path -d 'Certificate with its chain, PEM [SSL_CERT_PATH, default ./certs/server.crt]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l ssl-key-path -d 'Private key, PEM [SSL_KEY_PATH, default ./certs/server.key]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l ssl-required -d 'Never fall back to plaintext [SSL_REQUIRED, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l log-level -d 'off, error, warn, info, debug or trace [LOG_LEVEL, default info]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l history-messages -d 'Newest messages kept for the history; 0: none [HISTORY_MESSAGES, default 10000]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l history-days -d 'Days that messages are kept; 0: forever [HISTORY_DAYS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l resume-seconds -d 'How long a member whose connection was lost stays in the room; 0: not at all [RESUME_SECONDS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l max-connections -d 'Maximum number of connections [MAX_CONNECTIONS, default 4096]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l max-connections-per-ip -d 'Maximum number of connections from one address; 0: no limit; loopback is exempt [MAX_CONNECTIONS_PER_IP, default 64]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l connect-rate -d 'Sustained connections per second from one address; more wait; 0: no limit; loopback is exempt [CONNECT_RATE, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l join-rate -d 'Sustained joins per second from one address; more wait; 0: no limit; loopback is exempt [JOIN_RATE, default 1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l message-rate -d 'Sustained messages per second from one client; 0: no limit [MESSAGE_RATE, default 5]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l message-burst -d 'Messages a client may send at once before the rate applies [MESSAGE_BURST, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l max-senders-per-ip -d 'One address may send as much as this many connections; 0: no limit; loopback is exempt [MAX_SENDERS_PER_IP, default 8]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l max-message-bytes -d 'Longest message accepted from a client [MAX_MESSAGE_BYTES, default 16384]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l send-queue-bytes -d 'Maximum number of bytes queued for one slow client [SEND_QUEUE_BYTES, default 1048576]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l handshake-timeout -d 'Time limit for TLS and the upgrade together, and for each message [HANDSHAKE_TIMEOUT, default 10]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l ping-interval -d 'Silence before a client is pinged [PING_INTERVAL, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l allowed-origins -d 'Origins that may connect, comma-separated; unset: any [ALLOWED_ORIGINS, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l trusted-proxies -d 'Networks (CIDR) whose X-Forwarded-For is trusted, comma-separated [TRUSTED_PROXIES, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l metrics-allow -d 'Networks (CIDR) that may read /metrics, in addition to loopback [METRICS_ALLOW, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l cluster-url -d 'Redis or Valkey server through which several servers form one chat [CLUSTER_URL, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l cluster-name -d 'Name of the chat, if CLUSTER_URL has several [CLUSTER_NAME, default tinychat]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -l node-name -d 'Name of this server; unset: the host name and a random suffix [NODE_NAME, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand check" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l host -d 'Address to listen on (IPv4, IPv6 or a host name) [HOST, default 127.0.0.1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l port -d 'Port to listen on; 0 lets the system choose [PORT, default 8765]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l mod-password -d 'Password for /login, or its hash; unset: /login makes nobody a moderator [MOD_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l join-password -d 'Password for joining, or its hash; unset: anyone may join [JOIN_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l web-ui -d 'Serve the chat page to browsers [WEB_UI, default true]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l use-ssl -d 'Serve wss:// instead of ws:// [USE_SSL, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l ssl-cert-path -d 'Certificate with its chain, PEM [SSL_CERT_PATH, default ./certs/server.crt]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l ssl-key-path -d 'Private key, PEM [SSL_KEY_PATH, default ./certs/server.key]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l ssl-required -d 'Never fall back to plaintext [SSL_REQUIRED, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l log-level -d 'off, error, warn, info, debug or trace [LOG_LEVEL, default info]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l history-messages -d 'Newest messages kept for the history; 0: none [HISTORY_MESSAGES, default 10000]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l history-days -d 'Days that messages are kept; 0: forever [HISTORY_DAYS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l resume-seconds -d 'How long a member whose connection was lost stays in the room; 0: not at all [RESUME_SECONDS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l max-connections -d 'Maximum number of connections [MAX_CONNECTIONS, default 4096]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l max-connections-per-ip -d 'Maximum number of connections from one address; 0: no limit; loopback is exempt [MAX_CONNECTIONS_PER_IP, default 64]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l connect-rate -d 'Sustained connections per second from one address; more wait; 0: no limit; loopback is exempt [CONNECT_RATE, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l join-rate -d 'Sustained joins per second from one address; more wait; 0: no limit; loopback is exempt [JOIN_RATE, default 1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l message-rate -d 'Sustained messages per second from one client; 0: no limit [MESSAGE_RATE, default 5]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l message-burst -d 'Messages a client may send at once before the rate applies [MESSAGE_BURST, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l max-senders-per-ip -d 'One address may send as much as this many connections; 0: no limit; loopback is exempt [MAX_SENDERS_PER_IP, default 8]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l max-message-bytes -d 'Longest message accepted from a client [MAX_MESSAGE_BYTES, default 16384]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l send-queue-bytes -d 'Maximum number of bytes queued for one slow client [SEND_QUEUE_BYTES, default 1048576]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l handshake-timeout -d 'Time limit for TLS and the upgrade together, and for each message [HANDSHAKE_TIMEOUT, default 10]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l ping-interval -d 'Silence before a client is pinged [PING_INTERVAL, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l allowed-origins -d 'Origins that may connect, comma-separated; unset: any [ALLOWED_ORIGINS, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l trusted-proxies -d 'Networks (CIDR) whose X-Forwarded-For is trusted, comma-separated [TRUSTED_PROXIES, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l metrics-allow -d 'Networks (CIDR) that may read /metrics, in addition to loopback [METRICS_ALLOW, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l cluster-url -d 'Redis or Valkey server through which several servers form one chat [CLUSTER_URL, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l cluster-name -d 'Name of the chat, if CLUSTER_URL has several [CLUSTER_NAME, default tinychat]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -l node-name -d 'Name of this server; unset: the host name and a random suffix [NODE_NAME, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l host -d 'Address to listen on (IPv4, IPv6 or a host name) [HOST, default 127.0.0.1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l port -d 'Port to listen on; 0 lets the system choose [PORT, default 8765]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l mod-password -d 'Password for /login, or its hash; unset: /login makes nobody a moderator [MOD_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l join-password -d 'Password for joining, or its hash; unset: anyone may join [JOIN_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l web-ui -d 'Serve the chat page to browsers [WEB_UI, default true]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l use-ssl -d 'Serve wss:// instead of ws:// [USE_SSL, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l ssl-cert-path -d 'Certificate with its chain, PEM [SSL_CERT_PATH, default ./certs/server.crt]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l ssl-key-path -d 'Private key, PEM [SSL_KEY_PATH, default ./certs/server.key]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l ssl-required -d 'Never fall back to plaintext [SSL_REQUIRED, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l log-level -d 'off, error, warn, info, debug or trace [LOG_LEVEL, default info]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l history-messages -d 'Newest messages kept for the history; 0: none [HISTORY_MESSAGES, default 10000]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l history-days -d 'Days that messages are kept; 0: forever [HISTORY_DAYS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l resume-seconds -d 'How long a member whose connection was lost stays in the room; 0: not at all [RESUME_SECONDS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l max-connections -d 'Maximum number of connections [MAX_CONNECTIONS, default 4096]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l max-connections-per-ip -d 'Maximum number of connections from one address; 0: no limit; loopback is exempt [MAX_CONNECTIONS_PER_IP, default 64]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l connect-rate -d 'Sustained connections per second from one address; more wait; 0: no limit; loopback is exempt [CONNECT_RATE, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l join-rate -d 'Sustained joins per second from one address; more wait; 0: no limit; loopback is exempt [JOIN_RATE, default 1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l message-rate -d 'Sustained messages per second from one client; 0: no limit [MESSAGE_RATE, default 5]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l message-burst -d 'Messages a client may send at once before the rate applies [MESSAGE_BURST, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l max-senders-per-ip -d 'One address may send as much as this many connections; 0: no limit; loopback is exempt [MAX_SENDERS_PER_IP, default 8]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l max-message-bytes -d 'Longest message accepted from a client [MAX_MESSAGE_BYTES, default 16384]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l send-queue-bytes -d 'Maximum number of bytes queued for one slow client [SEND_QUEUE_BYTES, default 1048576]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l handshake-timeout -d 'Time limit for TLS and the upgrade together, and for each message [HANDSHAKE_TIMEOUT, default 10]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l ping-interval -d 'Silence before a client is pinged [PING_INTERVAL, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l allowed-origins -d 'Origins that may connect, comma-separated; unset: any [ALLOWED_ORIGINS, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l trusted-proxies -d 'Networks (CIDR) whose X-Forwarded-For is trusted, comma-separated [TRUSTED_PROXIES, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l metrics-allow -d 'Networks (CIDR) that may read /metrics, in addition to loopback [METRICS_ALLOW, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l cluster-url -d 'Redis or Valkey server through which several servers form one chat [CLUSTER_URL, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l cluster-name -d 'Name of the chat, if CLUSTER_URL has several [CLUSTER_NAME, default tinychat]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -l node-name -d 'Name of this server; unset: the host name and a random suffix [NODE_NAME, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand export" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l host -d 'Address to listen on (IPv4, IPv6 or a host name) [HOST, default 127.0.0.1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l port -d 'Port to listen on; 0 lets the system choose [PORT, default 8765]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l mod-password -d 'Password for /login, or its hash; unset: /login makes nobody a moderator [MOD_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l join-password -d 'Password for joining, or its hash; unset: anyone may join [JOIN_PASSWORD, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l web-ui -d 'Serve the chat page to browsers [WEB_UI, default true]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l use-ssl -d 'Serve wss:// instead of ws:// [USE_SSL, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l ssl-cert-path -d 'Certificate with its chain, PEM [SSL_CERT_PATH, default ./certs/server.crt]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l ssl-key-path -d 'Private key, PEM [SSL_KEY_PATH, default ./certs/server.key]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l ssl-required -d 'Never fall back to plaintext [SSL_REQUIRED, default false]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l log-level -d 'off, error, warn, info, debug or trace [LOG_LEVEL, default info]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l history-messages -d 'Newest messages kept for the history; 0: none [HISTORY_MESSAGES, default 10000]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l history-days -d 'Days that messages are kept; 0: forever [HISTORY_DAYS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l resume-seconds -d 'How long a member whose connection was lost stays in the room; 0: not at all [RESUME_SECONDS, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l max-connections -d 'Maximum number of connections [MAX_CONNECTIONS, default 4096]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l max-connections-per-ip -d 'Maximum number of connections from one address; 0: no limit; loopback is exempt [MAX_CONNECTIONS_PER_IP, default 64]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l connect-rate -d 'Sustained connections per second from one address; more wait; 0: no limit; loopback is exempt [CONNECT_RATE, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l join-rate -d 'Sustained joins per second from one address; more wait; 0: no limit; loopback is exempt [JOIN_RATE, default 1]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l message-rate -d 'Sustained messages per second from one client; 0: no limit [MESSAGE_RATE, default 5]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l message-burst -d 'Messages a client may send at once before the rate applies [MESSAGE_BURST, default 20]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l max-senders-per-ip -d 'One address may send as much as this many connections; 0: no limit; loopback is exempt [MAX_SENDERS_PER_IP, default 8]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l max-message-bytes -d 'Longest message accepted from a client [MAX_MESSAGE_BYTES, default 16384]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l send-queue-bytes -d 'Maximum number of bytes queued for one slow client [SEND_QUEUE_BYTES, default 1048576]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l handshake-timeout -d 'Time limit for TLS and the upgrade together, and for each message [HANDSHAKE_TIMEOUT, default 10]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l ping-interval -d 'Silence before a client is pinged [PING_INTERVAL, default 30]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l allowed-origins -d 'Origins that may connect, comma-separated; unset: any [ALLOWED_ORIGINS, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l trusted-proxies -d 'Networks (CIDR) whose X-Forwarded-For is trusted, comma-separated [TRUSTED_PROXIES, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l metrics-allow -d 'Networks (CIDR) that may read /metrics, in addition to loopback [METRICS_ALLOW, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l cluster-url -d 'Redis or Valkey server through which several servers form one chat [CLUSTER_URL, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l cluster-name -d 'Name of the chat, if CLUSTER_URL has several [CLUSTER_NAME, default tinychat]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -l node-name -d 'Name of this server; unset: the host name and a random suffix [NODE_NAME, unset]' -r
complete -c tinychat -n "__fish_tinychat_using_subcommand audit" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand hash-password" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and not __fish_seen_subcommand_from add remove list help" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and not __fish_seen_subcommand_from add remove list help" -f -a "add" -d 'Reserve a name and set its password, which is typed twice or is the first line of standard input'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and not __fish_seen_subcommand_from add remove list help" -f -a "remove" -d 'Remove a moderator, which frees the name'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and not __fish_seen_subcommand_from add remove list help" -f -a "list" -d 'Print the names of all moderators'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and not __fish_seen_subcommand_from add remove list help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from add" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from remove" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from list" -l database-path -d 'The store; off: nothing is written to disk [DATABASE_PATH, default ./tinychat.db]' -r -F
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from help" -f -a "add" -d 'Reserve a name and set its password, which is typed twice or is the first line of standard input'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove a moderator, which frees the name'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from help" -f -a "list" -d 'Print the names of all moderators'
complete -c tinychat -n "__fish_tinychat_using_subcommand moderator; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "generate-certs" -d 'Create a self-signed certificate and key for testing'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "check" -d 'Check the settings, the certificate and the store as at startup, without listening'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "health" -d 'Ask the running server whether it is healthy; the exit status is 0 if it is, and 1 if not'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "export" -d 'Print the kept messages as JSON lines, oldest first, whether or not the server is running'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "audit" -d 'Print the audit log of moderation, oldest first, whether or not the server is running'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "hash-password" -d 'Print the hash of a password, for MOD_PASSWORD and JOIN_PASSWORD'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "moderator" -d 'Add, remove or list moderators that have a name and a password of their own'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and not __fish_seen_subcommand_from generate-certs check health export audit hash-password moderator help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and __fish_seen_subcommand_from moderator" -f -a "add" -d 'Reserve a name and set its password, which is typed twice or is the first line of standard input'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and __fish_seen_subcommand_from moderator" -f -a "remove" -d 'Remove a moderator, which frees the name'
complete -c tinychat -n "__fish_tinychat_using_subcommand help; and __fish_seen_subcommand_from moderator" -f -a "list" -d 'Print the names of all moderators'

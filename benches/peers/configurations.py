"""The texts that the servers are set with. `%(name)s` are values of servers.py."""

ANTEROOM = """
upstream.url = "http://127.0.0.1:%(origin)d"
listen.address = "127.0.0.1:%(port)d"
admin.address = "127.0.0.1:%(admin)d"
cache.memory = %(memory)d
cache.ttl = "1h"
cache.compress = "%(compress)s"
limits.connections_per_address = 16384
limits.requests_per_address = 32768
log.only = "trouble"
drain.notice = "0s"
drain.deadline = "2s"
"""

ORIGIN = """
daemon off; pid %(folder)s/nginx.pid; worker_processes 1; %(user)s worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
    access_log off; types {} default_type "application/json; charset=utf-8"; sendfile on; tcp_nopush on;
    keepalive_requests 1000000000; keepalive_time 1d; keepalive_timeout 1h; etag off; if_modified_since off;
    open_file_cache max=100 inactive=1h; open_file_cache_valid 1h; server_tokens off; max_ranges 0;
    client_body_temp_path %(folder)s/a; proxy_temp_path %(folder)s/b; fastcgi_temp_path %(folder)s/c;
    uwsgi_temp_path %(folder)s/d; scgi_temp_path %(folder)s/e;
    # As rack-cors does: for requests with an origin only; nginx sends no empty field.
    map $http_origin $allowed { "" ""; default "*"; }
    map $http_origin $methods { "" ""; default "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"; }
    map $http_origin $longest { "" ""; default "7200"; }
    server {
        listen 127.0.0.1:%(port)d backlog=4096; root %(folder)s;
        location = /requests { stub_status; }
        %(locations)s
    }
}
"""

NGINX = """
daemon off; pid %(folder)s/nginx.pid; worker_processes 1; %(user)s worker_rlimit_nofile %(files)d;
events { worker_connections %(files)d; }
http {
    access_log off; sendfile on; tcp_nopush on; server_tokens off;
    keepalive_requests 1000000000; keepalive_time 1d; keepalive_timeout 1h;
    client_body_temp_path %(folder)s/a; proxy_temp_path %(folder)s/b; fastcgi_temp_path %(folder)s/c;
    uwsgi_temp_path %(folder)s/d; scgi_temp_path %(folder)s/e;
    proxy_cache_path %(folder)s/lists levels=1:2 keys_zone=lists:%(keys)dm max_size=%(mib)dm inactive=1d
        use_temp_path=off;
    open_file_cache max=500 inactive=1h; open_file_cache_valid 1h;
    upstream origin { server 127.0.0.1:%(origin)d; keepalive 32; keepalive_requests 1000000000; keepalive_time 1d; }
    %(gzip)s
    server {
        listen 127.0.0.1:%(port)d backlog=4096; listen 127.0.0.1:%(port_two)d backlog=4096 http2;
        proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
        location ~ /conversations$ {
            proxy_pass http://origin; proxy_cache lists; proxy_cache_key $uri; proxy_cache_lock on;
            proxy_cache_use_stale updating; proxy_cache_background_update on;
        }
        location / { proxy_pass http://origin; }
    }
}
"""

VARNISH = """
vcl 4.1;
backend origin { .host = "127.0.0.1"; .port = "%(origin)d"; }
sub vcl_recv {
    if (req.method != "GET" || req.url !~ "/conversations$") { return (pass); }
    return (hash);
}
sub vcl_backend_response { set beresp.grace = 15s; %(gzip)s }
"""

HAPROXY = """
global
    nbthread 1
    maxconn %(connections)d
    no strict-limits
defaults
    mode http
    timeout client 1h
    timeout server 30s
    timeout connect 5s
    timeout http-keep-alive 1h
cache lists
    total-max-size %(mib)d
    max-object-size %(largest)d
    max-age 86400
frontend public
    bind 127.0.0.1:%(port)d backlog 4096
    bind 127.0.0.1:%(port_two)d backlog 4096 proto h2
    acl list path_end /conversations
%(gzip)s
    http-request cache-use lists if list
    http-response del-header vary
    http-response cache-store lists
    default_backend origin
backend origin
    http-reuse always
    server one 127.0.0.1:%(origin)d
"""

HAPROXY_GZIP = """
    filter cache lists
    filter compression
    compression algo gzip
    compression type application/json
"""

RUNROOT = """
prefix: %(folder)s/ats
exec_prefix: /usr
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: %(folder)s/ats/etc
datadir: %(folder)s/ats
includedir: %(folder)s/ats
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: %(folder)s/ats/run
runtimedir: %(folder)s/ats/run
logdir: %(folder)s/ats/log
mandir: %(folder)s/ats
infodir: %(folder)s/ats
cachedir: %(folder)s/ats/cache
"""

TRAFFIC_SERVER = {
    "records.config": """
CONFIG proxy.config.http.server_ports STRING %(port)d:ipv4:ip-in=127.0.0.1:proto=http2;http
CONFIG proxy.config.exec_thread.autoconfig.enabled INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.exec_thread.affinity INT 0
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.cache.threads_per_disk INT 4
CONFIG proxy.config.cache.ram_cache.size INT %(memory)d
CONFIG proxy.config.cache.ram_cache.algorithm INT 1
CONFIG proxy.config.cache.ram_cache.use_seen_filter INT 0
CONFIG proxy.config.cache.min_average_object_size INT 2000
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.diags.debug.enabled INT 0
CONFIG proxy.config.net.connections_throttle INT %(files)d
CONFIG proxy.config.net.max_connections_in INT %(files)d
CONFIG proxy.config.net.max_requests_in INT 0
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.url_remap.pristine_host_hdr INT 1
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 3600
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.cache.enable_read_while_writer INT 1
CONFIG proxy.config.http.background_fill_active_timeout INT 0
CONFIG proxy.config.http.background_fill_completed_threshold FLOAT 0.0
CONFIG proxy.config.http.cache.open_write_fail_action INT 5
CONFIG proxy.config.http.cache.max_open_read_retries INT 100
CONFIG proxy.config.http.cache.open_read_retry_time INT 20
CONFIG proxy.config.http.wait_for_cache INT 1
""",
    "storage.config": "%(folder)s/ats/cache %(storage)d\n",
    "remap.config": "map / http://127.0.0.1:%(origin)d/\n",
    "cache.config": "url_regex=/messages$ action=never-cache\n",
    "compress.config": "cache true\nremove-accept-encoding true\ncompressible-content-type application/json*\n"
    "supported-algorithms gzip\n",
    "ip_allow.yaml": "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n",
    "volume.config": "", "hosting.config": "", "parent.config": "", "splitdns.config": "", "socks.config": "",
    "logging.yaml": "", "sni.yaml": "", "ssl_multicert.config": "", "strategies.yaml": "",
}

SQUID = """
http_port 127.0.0.1:%(port)d accel defaultsite=bench.test no-vhost
cache_peer 127.0.0.1 parent %(origin)d 0 no-query no-digest no-netdb-exchange originserver name=origin
acl list urlpath_regex /conversations$
cache deny !list
http_access allow all
never_direct allow all
cache_mem %(memory)d bytes
maximum_object_size_in_memory 4 MB
memory_cache_mode always
collapsed_forwarding on
access_log none
cache_store_log none
cache_log %(folder)s/cache.log
pid_filename none
coredump_dir none
pinger_enable off
shutdown_lifetime 0 seconds
client_idle_pconn_timeout 1 hour
max_filedescriptors %(files)d
visible_hostname bench.test
"""

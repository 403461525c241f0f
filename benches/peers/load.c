/* The load: GETs over connections that stay open, as HTTP/1.1 or HTTP/2 (prior knowledge, no TLS). One thread, epoll.
 *
 *     load port=8080 path=/lists/@@@@@@@@ connections=32 seconds=2 NAME=VALUE...
 *
 * Why not h2load or wrk: none in Debian has an open loop whose latencies count from the moment a request was due, so
 * a server that stalls would be measured less often while it stalls. One program for all cases costs the same in all.
 *
 * It connects, runs for `warm` seconds, prints "ready", and begins when it reads a line. So whoever reads the server's
 * CPU time at these two points counts the requests alone. It prints one line of JSON; its connections stay open until
 * its standard input ends. Without `rate` each connection asks again when it has its answer (closed loop); with
 * `rate` requests are due at that pace on whichever connection is free (open loop).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load_http.h"

enum { EVENTS = 512, DIGITS = 8 };
static const uint64_t SECOND = 1000000000, PATIENCE = 30;

static struct {
    int port, connections, depth, http2, up;
    double seconds, warm, rate;
    uint64_t requests, first, span;
    int status;
    const char *path, *fields[8];
    int field_count;
} options = {.connections = 1, .depth = 1, .warm = 0, .seconds = 1, .span = 1, .status = 200};

/* What a phase has seen. Latencies are counted in classes, each a 64th of a power of two of nanoseconds wide. */
static struct {
    uint64_t issued, done, failed, bytes, reconnects, begun, ends, last, classes[64 * 64], longest;
    int statuses[600];
} seen;

static struct connection *connections;
/* Connections that may take a request: a ring. */
static int *idle, idle_first, idle_count, idle_size;
static int epoll;
static uint64_t asked;
static char request[4096];
static size_t request_size, digits_at;
static int has_digits;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void note_latency(uint64_t took) {
    int power = took < 64 ? 0 : 63 - __builtin_clzll(took) - 5;
    seen.classes[power * 64 + (took >> power)]++;
    if (took > seen.longest)
        seen.longest = took;
}

/* Microseconds; the middle of the class. */
static double latency(double share) {
    uint64_t rest = 0, total = 0;
    for (int at = 0; at < 64 * 64; at++)
        total += seen.classes[at];
    for (int at = 0; at < 64 * 64; at++) {
        rest += seen.classes[at];
        if (total && rest >= share * total)
            return ((at % 64) + 0.5) * (double)(1ULL << (at / 64)) / 1000;
    }
    return 0;
}

static void make_idle(int number) {
    idle[(idle_first + idle_count++) % idle_size] = number;
}

static void open_connection(int number) {
    struct connection *one = &connections[number];
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(options.port)};
    int yes = 1;
    memset(one, 0, sizeof *one);
    one->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (one->socket < 0 || connect(one->socket, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    setsockopt(one->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(one->socket, F_SETFL, O_NONBLOCK);
    if (options.http2)
        http2_begin(one);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, one->socket, &event) < 0)
        fail("epoll_ctl");
}

/* The next list to ask for: one after the other, or any of them. */
static uint64_t next_number(void) {
    static uint64_t state = 88172645463325252ULL;
    if (options.up)
        return options.first + asked % options.span;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return options.first + state % options.span;
}

static void ask(int number, uint64_t due) {
    struct connection *one = &connections[number];
    if (has_digits) {
        uint64_t rest = next_number();
        for (int at = DIGITS - 1; at >= 0; at--, rest /= 10)
            request[digits_at + at] = '0' + rest % 10;
    }
    asked++;
    seen.issued++;
    struct slot *slot = free_slot(one, options.depth);
    slot->due = due;
    slot->busy = 1;
    if (options.http2)
        http2_number(one, slot, request);
    /* A request is small and nothing lies before it: it goes out whole, or the connection is lost. */
    if (send(one->socket, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
        shutdown(one->socket, SHUT_RDWR);
}

static void ended(int number, struct slot *slot, int status) {
    slot->busy = 0;
    seen.last = now();
    seen.done++;
    seen.statuses[status > 0 && status < 600 ? status : 0]++;
    if (status != options.status)
        seen.failed++;
    note_latency(seen.last - slot->due);
    make_idle(number);
}

/* Asks on connections that are free, as far as requests are due. */
static void pump(void) {
    double interval = options.rate > 0 ? SECOND / options.rate : 0;
    while (idle_count && seen.issued < options.requests) {
        uint64_t moment = now(), due = moment;
        if (interval > 0)
            due = seen.begun + (uint64_t)(seen.issued * interval);
        if (due > moment || due >= seen.ends)
            return;
        int number = idle[idle_first];
        idle_first = (idle_first + 1) % idle_size;
        idle_count--;
        ask(number, due);
    }
}

static void lost(int number) {
    struct connection *one = &connections[number];
    close(one->socket);
    int busy = 0;
    for (int at = 0; at < options.depth; at++)
        busy += one->slots[at].busy;
    seen.done += busy;
    seen.failed += busy;
    seen.statuses[0] += busy;
    seen.reconnects++;
    /* Places that were free are in the ring already. */
    open_connection(number);
    while (busy--)
        make_idle(number);
}

static void receive(int number) {
    static char bytes[1 << 18];
    struct connection *one = &connections[number];
    ssize_t size = recv(one->socket, bytes, sizeof bytes, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        lost(number);
        return;
    }
    seen.bytes += size;
    const char *at = bytes, *end = bytes + size;
    while (at < end) {
        struct slot *slot = NULL;
        int status = options.http2 ? http2_read(one, &at, end, &slot) : http1_read(one, &at, end, &slot);
        if (status < 0) {
            lost(number);
            return;
        }
        if (slot)
            ended(number, slot, status);
    }
}

/* Runs until `ends` or until so many requests are done, and then until all answers are there. */
static void run(double seconds, uint64_t requests) {
    struct epoll_event events[EVENTS];
    uint64_t allowed = options.requests;
    memset(&seen, 0, sizeof seen);
    options.requests = requests;
    seen.begun = seen.last = now();
    seen.ends = seen.begun + (uint64_t)(seconds * SECOND);
    pump();
    for (;;) {
        uint64_t moment = now();
        int over = seen.issued >= requests || moment >= seen.ends;
        /* In an open loop what was due before the end is asked, however late. */
        if (over && options.rate > 0 && seen.issued < requests)
            over = seen.begun + (uint64_t)(seen.issued * (SECOND / options.rate)) >= seen.ends;
        /* A server that mostly fails is not measured any longer. */
        int hopeless = seen.failed > 1000 && seen.failed > seen.done / 10;
        if ((over && seen.done == seen.issued) || hopeless || moment > seen.last + PATIENCE * SECOND)
            break;
        /* Sleeping would come too late for what is due next. */
        int ready = epoll_wait(epoll, events, EVENTS, options.rate > 0 ? 0 : 10);
        for (int at = 0; at < ready; at++) {
            receive(events[at].data.u32);
            pump();
        }
        pump();
    }
    options.requests = allowed;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void tell(double cpu) {
    printf("{\"asked\": %lu, ", asked);
    printf("\"requests\": %lu, \"failed\": %lu, \"unanswered\": %lu, \"seconds\": %.6f, \"bytes\": %lu, ", seen.done,
           seen.failed, seen.issued - seen.done, (seen.last - seen.begun) / 1e9, seen.bytes);
    printf("\"reconnects\": %lu, \"load_cpu\": %.6f, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, \"p999\": %.2f, ",
           seen.reconnects, cpu, latency(0.5), latency(0.9), latency(0.99), latency(0.999));
    printf("\"longest\": %.2f, \"statuses\": {", seen.longest / 1e3);
    const char *comma = "";
    for (int status = 0; status < 600; status++)
        if (seen.statuses[status]) {
            printf("%s\"%d\": %d", comma, status, seen.statuses[status]);
            comma = ", ";
        }
    printf("}}\n");
    fflush(stdout);
}

static void set(const char *name, const char *value) {
    const char *names[] = {"port", "connections", "depth", "http2", "up", "seconds", "warm", "rate", "requests",
                           "first", "span", "status", "path", "field"};
    int which = 0;
    while (which < 14 && strcmp(names[which], name))
        which++;
    switch (which) {
    case 0: options.port = atoi(value); break;
    case 1: options.connections = atoi(value); break;
    case 2: options.depth = atoi(value); break;
    case 3: options.http2 = atoi(value); break;
    case 4: options.up = atoi(value); break;
    case 5: options.seconds = atof(value); break;
    case 6: options.warm = atof(value); break;
    case 7: options.rate = atof(value); break;
    case 8: options.requests = strtoull(value, NULL, 10); break;
    case 9: options.first = strtoull(value, NULL, 10); break;
    case 10: options.span = strtoull(value, NULL, 10); break;
    case 11: options.status = atoi(value); break;
    case 12: options.path = value; break;
    case 13:
        if (options.field_count < 8)
            options.fields[options.field_count++] = value;
        break;
    default: fprintf(stderr, "load knows no %s\n", name); exit(2);
    }
}

static void prepare(void) {
    if (!options.path || !options.port || options.depth < 1 || options.depth > DEPTH || !options.span) {
        fprintf(stderr, "load needs a port, a path, and a depth of 1 to %d\n", DEPTH);
        exit(2);
    }
    request_size = options.http2 ? http2_request(request, options.path, options.fields, options.field_count)
                                 : http1_request(request, options.path, options.fields, options.field_count);
    char *digits = memmem(request, request_size, "@@@@@@@@", DIGITS);
    has_digits = digits != NULL;
    digits_at = has_digits ? digits - request : 0;
    options.depth = options.http2 ? options.depth : 1;
    idle_size = options.connections * options.depth + 1;
    connections = calloc(options.connections, sizeof *connections);
    idle = calloc(idle_size, sizeof *idle);
    epoll = epoll_create1(0);
    if (!connections || !idle || epoll < 0)
        fail("epoll_create1");
}

int main(int count, char **words) {
    char line[16];
    for (int at = 1; at < count; at++) {
        char *value = strchr(words[at], '=');
        if (!value)
            return 2;
        *value = 0;
        set(words[at], value + 1);
    }
    uint64_t requests = options.requests ? options.requests : UINT64_MAX;
    prepare();
    for (int number = 0; number < options.connections; number++) {
        open_connection(number);
        for (int at = 0; at < options.depth; at++)
            make_idle(number);
    }
    if (options.warm > 0)
        run(options.warm, UINT64_MAX);
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    double before = cpu_seconds();
    run(options.requests ? 3600 : options.seconds, requests);
    tell(cpu_seconds() - before);
    while (fgets(line, sizeof line, stdin))
        ;
    return 0;
}

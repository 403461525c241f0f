/* The floor: what the kernel's work of answering costs, or of passing on, and nothing else. One thread, epoll.
 *
 *     floor ANSWER
 *     floor --to PORT
 *
 * ANSWER is a file with a whole answer, head and body. It is sent once for each head of a request that has ended,
 * whatever that asks for. With PORT, requests go there as they came, over connections that are used again, and answers
 * come back as they are. The port is printed. Requests with bodies are not understood, nor are those that come in parts
 * when they are passed on, nor answers without a length.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EVENTS = 256, FILES = 1 << 20 };

static char *answer;
static size_t answer_size;
/* Where requests are passed on to, in the network's order; 0 if they are answered here. */
static in_port_t onward;

/* What is known of a connection: how much of "\r\n\r\n" has been seen, answers owed, and bytes sent of the first. */
struct connection {
    int seen;
    int owed;
    size_t sent;
    int waits;
    /* If it leads onward: whose answer comes, and how much is to come yet. */
    int client;
    size_t left;
};

/* Connections onward that nobody uses. */
static int *idle;
static int idle_count;

static struct connection *connections;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void load_answer(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat about;
    if (file < 0 || fstat(file, &about) < 0)
        fail(path);
    answer_size = about.st_size;
    answer = malloc(answer_size);
    if (!answer || read(file, answer, answer_size) != (ssize_t)answer_size)
        fail(path);
    close(file);
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (one < 0 || bind(one, (struct sockaddr *)&address, size) < 0 || listen(one, 4096) < 0)
        fail("listen");
    if (getsockname(one, (struct sockaddr *)&address, &size) < 0)
        fail("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return one;
}

static void watch(int epoll, int one, int how, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = one};
    if (epoll_ctl(epoll, how, one, &event) < 0)
        fail("epoll_ctl");
}

static void accept_all(int epoll, int listener) {
    int one, yes = 1;
    while ((one = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (one >= FILES) {
            close(one);
            continue;
        }
        setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        memset(&connections[one], 0, sizeof connections[one]);
        watch(epoll, one, EPOLL_CTL_ADD, EPOLLIN);
    }
}

/* Heads end with an empty line. */
static void count_heads(struct connection *connection, const char *bytes, ssize_t size) {
    for (ssize_t at = 0; at < size; at++) {
        if (bytes[at] == "\r\n\r\n"[connection->seen])
            connection->seen++;
        else
            connection->seen = bytes[at] == '\r';
        if (connection->seen == 4) {
            connection->seen = 0;
            connection->owed++;
        }
    }
}

/* Sends what is owed; -1 if the client has gone. */
static int send_owed(int epoll, int one, struct connection *connection) {
    while (connection->owed) {
        ssize_t sent = send(one, answer + connection->sent, answer_size - connection->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return -1;
        if (sent < 0)
            break;
        connection->sent += sent;
        if (connection->sent == answer_size) {
            connection->sent = 0;
            connection->owed--;
        }
    }
    int waits = connection->owed > 0;
    if (waits != connection->waits) {
        connection->waits = waits;
        watch(epoll, one, EPOLL_CTL_MOD, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    return 0;
}

static int serve(int epoll, int one) {
    static char bytes[65536];
    struct connection *connection = &connections[one];
    ssize_t size = recv(one, bytes, sizeof bytes, 0);
    if (size == 0 || (size < 0 && errno != EAGAIN))
        return -1;
    if (size > 0)
        count_heads(connection, bytes, size);
    return send_owed(epoll, one, connection);
}

static int connect_onward(int epoll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = onward, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, one = socket(AF_INET, SOCK_STREAM, 0);
    if (one < 0 || one >= FILES || connect(one, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(epoll, one, EPOLL_CTL_ADD, EPOLLIN);
    return one;
}

/* All of it, however long that takes; -1 if the other side has gone. */
static int send_all(int one, const char *bytes, size_t size) {
    while (size) {
        ssize_t sent = send(one, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return -1;
        if (sent < 0)
            poll(&(struct pollfd){.fd = one, .events = POLLOUT}, 1, -1);
        else
            bytes += sent, size -= sent;
    }
    return 0;
}

/* What comes of a client goes onward, and what comes from there goes to whoever has asked. */
static int pass(int epoll, int one) {
    static char bytes[65536 + 1];
    struct connection *connection = &connections[one];
    ssize_t size = recv(one, bytes, sizeof bytes - 1, 0);
    if (size <= 0)
        return size < 0 && errno == EAGAIN ? 0 : -1;
    if (!connection->client) {
        int other = idle_count ? idle[--idle_count] : connect_onward(epoll);
        connections[other] = (struct connection){.client = one};
        return send_all(other, bytes, size);
    }
    int client = connection->client;
    if (!connection->left) {
        bytes[size] = 0;
        const char *length = strcasestr(bytes, "\r\ncontent-length:"), *body = strstr(bytes, "\r\n\r\n");
        if (!length || !body || length > body)
            return -1;
        connection->left = body + 4 - bytes + strtoull(length + 17, NULL, 10);
    }
    connection->left -= size;
    if (!connection->left)
        idle[idle_count++] = one;
    return send_all(client, bytes, size);
}

int main(int count, char **words) {
    struct epoll_event events[EVENTS];
    if (count == 3 && !strcmp(words[1], "--to")) {
        onward = htons(atoi(words[2]));
    } else if (count == 2) {
        load_answer(words[1]);
    } else {
        fprintf(stderr, "floor ANSWER, or floor --to PORT\n");
        return 2;
    }
    connections = calloc(FILES, sizeof *connections);
    idle = calloc(FILES, sizeof *idle);
    int listener = listen_anywhere(), epoll = epoll_create1(0);
    if (!connections || !idle || epoll < 0)
        fail("epoll_create1");
    watch(epoll, listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            int one = events[at].data.fd;
            if (one == listener)
                accept_all(epoll, listener);
            else if ((onward ? pass(epoll, one) : serve(epoll, one)) < 0)
                close(one);
        }
    }
}

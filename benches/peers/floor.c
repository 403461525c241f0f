/* The floor: what the kernel's work of answering costs, and nothing else. One thread, epoll, one prepared answer.
 *
 *     floor ANSWER
 *
 * ANSWER is a file with a whole answer, head and body. It is sent once for each head of a request that has ended,
 * whatever that asks for. The port is printed. Requests with bodies are not understood.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

/* What is known of a connection: how much of "\r\n\r\n" has been seen, answers owed, and bytes sent of the first. */
struct connection {
    int seen;
    int owed;
    size_t sent;
    int waits;
};

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

int main(int count, char **words) {
    struct epoll_event events[EVENTS];
    if (count != 2) {
        fprintf(stderr, "floor ANSWER\n");
        return 2;
    }
    load_answer(words[1]);
    connections = calloc(FILES, sizeof *connections);
    int listener = listen_anywhere(), epoll = epoll_create1(0);
    if (!connections || epoll < 0)
        fail("epoll_create1");
    watch(epoll, listener, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int at = 0; at < ready; at++) {
            int one = events[at].data.fd;
            if (one == listener)
                accept_all(epoll, listener);
            else if (serve(epoll, one) < 0)
                close(one);
        }
    }
}

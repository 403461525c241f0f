"""An origin that thinks for half a second and counts: `slow_origin.py BODY`. Prints its port.

GET /requests tells how many other requests it has had.
"""

import asyncio
import sys

THINKS = 0.5
HEAD = """HTTP/1.1 200 OK\r
content-type: application/json; charset=utf-8\r
content-length: %d\r
cache-control: public, max-age=86400\r
vary: Origin\r
access-control-allow-origin: *\r
etag: W/"4f53cda18c2baa0c0354bb5f9a3ecbe5"\r
\r
"""


async def main():
    with open(sys.argv[1], "rb") as file:
        body = file.read()
    answer = (HEAD % len(body)).encode() + body
    had = 0

    async def serve(reader, writer):
        nonlocal had
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /requests "):
                    told = str(had).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(told), told))
                else:
                    had += 1
                    await asyncio.sleep(THINKS)
                    writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())

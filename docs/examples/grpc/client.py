"""A client of the gRPC API that needs no generated code: it asks the server's reflection service what there is.

    pip install grpcio grpcio-reflection
    python client.py localhost:4041 views
"""

import argparse
import json
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TOPOLOGY = "orchestrator.control.v1.TopologyService"
CONTROL = "orchestrator.control.v1.ControlService"


class Api:
    """Calls methods by their names, with requests as dictionaries in protobuf's JSON."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))

    def method(self, service, name):
        return self.pool.FindServiceByName(service).FindMethodByName(name)

    def call(self, service, name, request):
        """The reply, or an iterator of replies; `request` is an iterator where the client streams."""
        method = self.method(service, name)
        kind = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, True): self.channel.stream_stream,
        }[(method.client_streaming, method.server_streaming)]
        stub = kind(
            f"/{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        made = lambda fields: json_format.ParseDict(fields, GetMessageClass(method.input_type)())
        return stub(map(made, request) if method.client_streaming else made(request))


def views(api, _):
    for view in api.call(TOPOLOGY, "ListViews", {}).views:
        print(f"{view.id:<24} {view.statistics.node_count:>8} nodes {view.statistics.edge_count:>8} edges")


def nodes(api, flags):
    token = ""
    while True:
        request = {"view": flags.view, "query": flags.query, "options": dict(flags.option), "pageToken": token}
        page = api.call(TOPOLOGY, "ListNodes", request)
        for node in page.nodes:
            print(node.id, node.label, node.label_minor, sep="\t")
        token = page.next_page_token
        if not token:
            return


def watch(api, flags):
    updates = 0
    request = {"view": flags.view, "query": flags.query, "options": dict(flags.option)}
    for message in api.call(TOPOLOGY, "WatchView", request):
        for node_id in message.remove:
            print("-", node_id)
        for sign, changed in (("~", message.update), ("+", message.add)):
            for node in changed:
                print(sign, node.id, node.label, node.label_minor, sep="\t")
        sys.stdout.flush()
        updates += not message.more
        if updates == flags.updates:
            return


def node(api, flags):
    reply = api.call(TOPOLOGY, "GetNode", {"view": flags.view, "id": flags.id})
    print(json.dumps(json_format.MessageToDict(reply), indent=2, ensure_ascii=False))


def search(api, flags):
    reply = api.call(TOPOLOGY, "Search", {"query": flags.query})
    print(reply.total, "nodes", dict(reply.totals))
    for hit in reply.hits:
        print(hit.score, hit.view, hit.id, hit.label, sep="\t")


def logs(api, flags):
    """Calls a control that opens a pipe, and prints what comes out of it."""
    details = api.call(TOPOLOGY, "GetNode", {"view": "containers", "id": flags.id})
    control = next((control for control in details.controls if control.id == "docker_logs_container"), None)
    if control is None:
        sys.exit(f"{flags.id} has no logs to show: its probe does not offer docker_logs_container")
    called = {"probeId": control.probe_id, "nodeId": control.node_id, "control": control.id, "arguments": dict(flags.argument)}
    opened = api.call(CONTROL, "Call", called)
    for message in api.call(CONTROL, "Pipe", iter([{"pipeId": opened.pipe_id}])):
        sys.stdout.buffer.write(message.data)
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    commands = parser.add_subparsers(required=True)
    pair = lambda text: tuple(text.split("=", 1))

    def command(function, *arguments):
        sub = commands.add_parser(function.__name__)
        sub.set_defaults(run=function)
        for argument in arguments:
            sub.add_argument(argument)
        return sub

    command(views)
    for function in (nodes, watch):
        sub = command(function, "view")
        sub.add_argument("--query", default="")
        sub.add_argument("--option", type=pair, action="append", default=[], help="e.g. stopped=both")
        sub.add_argument("--updates", type=int, help="end after so many updates")
    command(node, "view", "id")
    command(search, "query")
    command(logs, "id").add_argument("--argument", type=pair, action="append", default=[], help="e.g. tail=10")
    flags = parser.parse_args()
    try:
        flags.run(Api(flags.server), flags)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()

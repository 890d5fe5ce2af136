"""Sets of values under which the chart is rendered: those it is made for, and those it refuses."""

from typing import Any

CLUSTER: dict[str, Any] = {"mode": "cluster"}
READ: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}

ACCEPTED: dict[str, dict[str, Any]] = {
    "single": {},
    "single-secured": {
        "tls": {"enabled": True, "existingSecret": "s3-tls"},
        "rootCredentials": {"existingSecret": "root-keys"},
        "domains": ["s3.example.org"],
        "scheme": {"data": 8, "parity": 3},
        "store": {
            "drives": {"count": 12, "storageClass": "local-nvme"},
            "metadata": {"storageClass": "mirrored"},
            "workers": None,
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
            "sidecars": [{"name": "logs", "image": "logs:1"}],
            "initContainers": [{"name": "before", "image": "before:1"}],
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "storage", "operator": "Exists"}],
            "priorityClassName": "high",
        },
        "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        "ingress": {"enabled": True, "hosts": ["s3.example.org"], "className": "nginx"},
        "websites": {
            "enabled": True,
            "ingress": {
                "enabled": True,
                "hosts": ["*.web.example.org", "www.example.org"],
                "tls": [{"secretName": "web-tls", "hosts": ["www.example.org"]}],
            },
        },
    },
    "cluster": CLUSTER,
    "cluster-full": {
        **CLUSTER,
        "image": {"digest": "sha256:" + "a" * 64, "pullSecrets": [{"name": "registry"}]},
        "tls": {
            "enabled": True,
            "certManager": {
                "enabled": True,
                "issuerRef": {"name": "letters"},
                "dnsNames": ["s3.example.org"],
            },
        },
        "etcd": {"tls": {"enabled": True}, "replicas": 5},
        "gateway": {"autoscaling": {"enabled": True, "maxReplicas": 20}},
        "node": {
            "zone": {"from": "podLabel"}, "drives": {"count": 12}, "tls": {"enabled": True},
        },
        "ingress": {"enabled": True, "hosts": ["a.example.org", "b.example.org"]},
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "edge", "namespace": "ingress"}],
            "hostnames": ["s3.example.org"],
        },
        "websites": {
            "enabled": True,
            "service": {"type": "LoadBalancer", "port": 443, "nodePort": 30443},
            "httpRoute": {"enabled": True, "hostnames": ["*.web.example.org"]},
        },
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "runbookUrl": "https://wiki.example.org/runbooks",
            },
            "dashboards": {"enabled": True, "annotations": {"folder": "Ostraka"}},
        },
        "provisioning": {
            "enabled": True,
            "accounts": [{"name": "loki"}, {"name": "velero", "existingSecret": "velero-s3"}],
            "groups": [{"name": "readers", "account": "loki", "policies": {"read": READ}}],
            "users": [
                {"name": "eyes", "account": "loki", "groups": ["readers"]},
                {"name": "eyes", "policies": {"read": READ}},
                {"name": "backup", "account": "velero", "existingSecret": "backup-keys"},
            ],
            "buckets": [
                {"name": "logs", "account": "loki"},
                {"name": "backups", "account": "velero", "versioning": True},
                {
                    "name": "public",
                    "policy": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": "*",
                                "Action": "s3:GetObject",
                                "Resource": "arn:aws:s3:::public/*",
                            }
                        ],
                    },
                },
            ],
        },
        "networkPolicy": {
            "adminFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "s3From": [{"namespaceSelector": {}}],
            "websitesFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        },
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-more"},
                "data": {"a": "b"},
            }
        ],
        "commonLabels": {"team": "storage"},
        "commonAnnotations": {"contact": "storage@example.org"},
    },
    "cluster-external-etcd": {
        **CLUSTER,
        "etcd": {
            "bundled": False,
            "externalEndpoints": ["https://e1.example.org:2379", "https://e2.example.org:2379"],
            "externalTLSSecret": "etcd-client",
            "snapshots": {"enabled": False},
        },
        "clusterKey": {"existingSecret": "key"},
        "rootCredentials": {"existingSecret": "root-keys"},
        "serviceAccount": {"create": False, "name": "shared"},
        "node": {
            "zone": {"from": "fixed", "value": "cellar"},
            "tls": {"enabled": True, "certManager": False, "secret": "node-tls"},
        },
        "networkPolicy": {"enabled": False},
        "tests": {"enabled": False},
        "monitoring": {"scrapeAnnotations": False},
    },
    "cluster-small": {
        **CLUSTER,
        "scheme": {"data": 2, "parity": 1},
        "node": {"replicas": 1, "drives": {"count": 3}, "spread": {"host": "ScheduleAnyway"}},
        "etcd": {"replicas": 1, "tls": {
            "enabled": True, "certManager": False, "serverSecret": "es", "clientSecret": "ec",
        }},
        "gateway": {"replicas": 1},
        "keeper": {"replicas": 1},
        "fullnameOverride": "jar",
    },
    "cluster-wide": {
        **CLUSTER,
        "scheme": {"data": 10, "parity": 4},
        "node": {"replicas": 14, "drives": {"count": 4}},
    },
}  # fmt: skip

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown value": ({"gatway": {}}, "gatway"),
    "an unknown mode": ({"mode": "swarm"}, "mode"),
    "root": ({"podSecurity": {"runAsUser": 0}}, "runAsUser"),
    "a size that is none": ({"store": {"metadata": {"size": "big"}}}, "size"),
    "two etcd members": ({**CLUSTER, "etcd": {"replicas": 2}}, "replicas"),
    "an upper-case bucket": ({"provisioning": {"buckets": [{"name": "Logs"}]}}, "buckets"),
    "an odd digest": ({"image": {"digest": "sha256:1"}}, "digest"),
    "too few drives": ({"store": {"drives": {"count": 4}}}, "4+2 needs at least 6 drives"),
    "too few nodes": ({**CLUSTER, "node": {"replicas": 2}}, "4+2 needs at least 6 drives"),
    "TLS from nowhere": ({"tls": {"enabled": True}}, "tls.enabled needs tls.existingSecret"),
    "two sources of TLS": (
        {"tls": {"enabled": True, "existingSecret": "a", "certManager": {"enabled": True}}},
        "choose one",
    ),
    "no etcd": ({**CLUSTER, "etcd": {"bundled": False}}, "name your etcd"),
    "two etcds": ({**CLUSTER, "etcd": {"externalEndpoints": ["http://e:2379"]}}, "choose one"),
    "etcd secrets that lack": (
        {**CLUSTER, "etcd": {"tls": {"enabled": True, "certManager": False}}},
        "etcd.tls.serverSecret",
    ),
    "node secrets that lack": (
        {**CLUSTER, "node": {"tls": {"enabled": True, "certManager": False}}},
        "node.tls.secret",
    ),
    "bounds that cross": (
        {**CLUSTER, "gateway": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
        "minReplicas is above",
    ),
    "no time to drain": (
        {**CLUSTER, "gateway": {"terminationGracePeriodSeconds": 35}},
        "30 s to drain",
    ),
    "a zone without a name": ({**CLUSTER, "node": {"zone": {"from": "fixed"}}}, "node.zone.value"),
    "a bucket of nobody": (
        {"provisioning": {"enabled": True, "buckets": [{"name": "logs", "account": "loki"}]}},
        "does not list",
    ),
    "a user of nobody": (
        {"provisioning": {"users": [{"name": "ann", "account": "loki"}]}},
        "user ann names the account loki",
    ),
    "a group of nobody": (
        {"provisioning": {"groups": [{"name": "team", "account": "loki"}]}},
        "group team names the account loki",
    ),
    "a user in another account's group": (
        {
            "provisioning": {
                "accounts": [{"name": "loki"}],
                "groups": [{"name": "team"}],
                "users": [{"name": "ann", "account": "loki", "groups": ["team"]}],
            }
        },
        "ann is in the group team, which provisioning.groups does not list",
    ),
    "a user twice": (
        {"provisioning": {"users": [{"name": "ann"}, {"name": "ann"}]}},
        "a user of an account twice",
    ),
    "a group twice": (
        {"provisioning": {"groups": [{"name": "team"}, {"name": "team"}]}},
        "a group of an account twice",
    ),
    "a user's policy without statements": (
        {"provisioning": {"users": [{"name": "ann", "policies": {"read": {}}}]}},
        "Statement",
    ),
    "a policy's name that IAM refuses": (
        {"provisioning": {"users": [{"name": "ann", "policies": {"re ad": READ}}]}},
        "re ad",
    ),
    "a user with a key in the values": (
        {"provisioning": {"users": [{"name": "ann", "secretKey": "not-here"}]}},
        "secretKey",
    ),
    "an ingress without hosts": ({"ingress": {"enabled": True}}, "ingress.hosts"),
    "a route to nowhere": ({"httpRoute": {"enabled": True}}, "parentRefs"),
    "websites that are routed but not served": (
        {"websites": {"ingress": {"enabled": True, "hosts": ["www.example.org"]}}},
        "websites.enabled is off",
    ),
    "websites without hosts": (
        {"websites": {"enabled": True, "ingress": {"enabled": True}}},
        "websites.ingress.hosts",
    ),
    "a host that is S3 and a website": (
        {
            "ingress": {"enabled": True, "hosts": ["a.example.org"]},
            "websites": {
                "enabled": True,
                "ingress": {"enabled": True, "hosts": ["a.example.org"]},
            },
        },
        "one host is S3 or a website",
    ),
}

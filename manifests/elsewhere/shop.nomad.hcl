# Nomad: carpool and the app share the network namespace of their group.
#
#   nomad job run shop.nomad.hcl
job "shop" {
  group "shop" {
    count = 2

    network {
      mode = "bridge" # a namespace for the group: 127.0.0.1 is the same to its tasks
      port "http" { to = 8080 }
      port "carpool" { to = 9128 }
    }

    service {
      name     = "carpool-shop"
      port     = "carpool"
      provider = "nomad"
      # Checks of this provider are made over the network: carpool ready is for the task below.
      check {
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "5s"
      }
    }

    # It starts before the app and stops after it.
    task "carpool" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
      config {
        image           = "ghcr.io/carpoolproxy/carpool:0.1.0"
        ports           = ["carpool"]
        cap_drop        = ["all"]
        readonly_rootfs = true
      }
      user         = "65532"
      kill_timeout = "30s" # carpool drains for 25 s at most; Nomad's own limit is 5 s
      resources {
        cpu    = 50
        memory = 128
      }
    }

    # Nomad waits until a sidecar runs, not until it serves. It waits for this one to end.
    task "carpool-ready" {
      driver = "docker"
      lifecycle {
        hook = "prestart"
      }
      config {
        image = "ghcr.io/carpoolproxy/carpool:0.1.0"
        args  = ["ready", "--wait", "60s"]
      }
      user = "65532"
      resources {
        cpu    = 20
        memory = 32
      }
    }

    task "app" {
      driver = "docker"
      config {
        image = "registry.example.com/app:1"
        ports = ["http"]
      }
      env {
        HTTP_PROXY = "http://127.0.0.1:3128"
        http_proxy = "http://127.0.0.1:3128"
        NO_PROXY   = "localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2,169.254.170.23,169.254.0.23,169.254.42.42,100.100.100.200,fd00:100::100:200,fd00:ec2::254,fd00:ec2::23,168.63.129.16,fd20:ce::254,fd00:a9fe:a9fe::1,192.0.0.192,fd00:c1::a9fe:a9fe,fd00:42::42,169.254.0.0/16,metadata.google.internal,metadata.google.internal.,metadata,metadata.tencentyun.com"
        no_proxy   = "localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2,169.254.170.23,169.254.0.23,169.254.42.42,100.100.100.200,fd00:100::100:200,fd00:ec2::254,fd00:ec2::23,168.63.129.16,fd20:ce::254,fd00:a9fe:a9fe::1,192.0.0.192,fd00:c1::a9fe:a9fe,fd00:42::42,169.254.0.0/16,metadata.google.internal,metadata.google.internal.,metadata,metadata.tencentyun.com"
        grpc_proxy = ""
      }
    }
  }
}

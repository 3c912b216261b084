{{/*
What carpool's settings must match, and what is said if they do not, as YAML. Made
from the table of settings: go test ./cmd/carpool/internal/config -update
*/}}
{{- define "carpool.settings" -}}
CARPOOL_LOG_LEVEL: {"pattern":"^((?i:debug|info|warn|error|warning|dpanic|panic|fatal))?$","want":"want debug, info, warn or error"}
CARPOOL_LOG_FORMAT: {"pattern":"^(json|console)?$","want":"want one of [json console]"}
CARPOOL_ACCESS_LOG: {"pattern":"^(off|errors|all)?$","want":"want one of [off errors all]"}
CARPOOL_IDLE_TIMEOUT: {"pattern":"^(\\+?(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*(([0-9]*[1-9][0-9]*(\\.[0-9]*)?|[0-9]*\\.[0-9]*[1-9][0-9]*)(ns|us|µs|μs|ms|s|m|h))(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m; more than 0, e.g. 50s (CARPOOL_MAX_IDLE_PER_HOST=0 keeps no idle connection)"}
CARPOOL_MAX_CONN_AGE: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_MAX_CONN_AGE_JITTER: {"pattern":"^(\\+?(0*(0|0?\\.[0-9]+|0\\.|1\\.?|1\\.0+)|[0-9](\\.[0-9]+)?e-[0-9]*[1-9][0-9]*|[01](\\.0+)?e[-+]?0+))?$","want":"want a number from 0 to 1, e.g. 0.2"}
CARPOOL_MAX_REQUESTS_PER_CONN: {"pattern":"^(0*(0|[1-9][0-9]{0,8}|1([0-9][0-9]{8})|2(0([0-9][0-9]{7})|1([0-3][0-9]{7}|4([0-6][0-9]{6}|7([0-3][0-9]{5}|4([0-7][0-9]{4}|8([0-2][0-9]{3}|3([0-5][0-9]{2}|6([0-3][0-9]|4([0-7])))))))))))?$","want":"want a whole number of 0 or more, e.g. 100"}
CARPOOL_MAX_CONNS_PER_HOST: {"pattern":"^(0*(0|[1-9][0-9]{0,8}|1([0-9][0-9]{8})|2(0([0-9][0-9]{7})|1([0-3][0-9]{7}|4([0-6][0-9]{6}|7([0-3][0-9]{5}|4([0-7][0-9]{4}|8([0-2][0-9]{3}|3([0-5][0-9]{2}|6([0-3][0-9]|4([0-7])))))))))))?$","want":"want a whole number of 0 or more, e.g. 100"}
CARPOOL_MAX_PENDING_PER_HOST: {"pattern":"^(0*(0|[1-9][0-9]{0,8}|1([0-9][0-9]{8})|2(0([0-9][0-9]{7})|1([0-3][0-9]{7}|4([0-6][0-9]{6}|7([0-3][0-9]{5}|4([0-7][0-9]{4}|8([0-2][0-9]{3}|3([0-5][0-9]{2}|6([0-3][0-9]|4([0-7])))))))))))?$","want":"want a whole number of 0 or more, e.g. 100"}
CARPOOL_PENDING_TIMEOUT: {"pattern":"^(\\+?(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*(([0-9]*[1-9][0-9]*(\\.[0-9]*)?|[0-9]*\\.[0-9]*[1-9][0-9]*)(ns|us|µs|μs|ms|s|m|h))(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m; more than 0, e.g. 10s (CARPOOL_MAX_PENDING_PER_HOST=0 lets no request wait)"}
CARPOOL_MAX_IDLE_PER_HOST: {"pattern":"^(0*(0|[1-9][0-9]{0,8}|1([0-9][0-9]{8})|2(0([0-9][0-9]{7})|1([0-3][0-9]{7}|4([0-6][0-9]{6}|7([0-3][0-9]{5}|4([0-7][0-9]{4}|8([0-2][0-9]{3}|3([0-5][0-9]{2}|6([0-3][0-9]|4([0-7])))))))))))?$","want":"want a whole number of 0 or more, e.g. 100"}
CARPOOL_DIAL_TIMEOUT: {"pattern":"^(\\+?(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*(([0-9]*[1-9][0-9]*(\\.[0-9]*)?|[0-9]*\\.[0-9]*[1-9][0-9]*)(ns|us|µs|μs|ms|s|m|h))(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m; more than 0, e.g. 5s"}
CARPOOL_RESPONSE_HEADER_TIMEOUT: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_BODY_IDLE_TIMEOUT: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_UPSTREAM_DEAD_TIMEOUT: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_CLIENT_HEADER_TIMEOUT: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_CLIENT_IDLE_TIMEOUT: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_MAX_HEADER_BYTES: {"pattern":"^(0*(1(0(2([4-9])|[3-9][0-9])|[1-9][0-9]{2})|[2-9][0-9]{3}|[1-9][0-9]{4,5}|1(0([0-3][0-9]{4}|4([0-7][0-9]{3}|8([0-4][0-9]{2}|5([0-6][0-9]|7([0-6]))))))|([1-9][0-9]{0,2}|1(0([0-1][0-9]|2([0-4]))))KiB?|1MiB?))?$","want":"want a size in bytes, KiB or MiB, e.g. 65536 or 64KiB; from 1KiB to 1MiB, e.g. 64KiB"}
CARPOOL_CA_FILE: {"pattern":"","want":"want "}
CARPOOL_CONNECT_PORTS: {"pattern":"^([ \\t]*0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3([0-5])))))[ \\t]*(,[ \\t]*0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3([0-5])))))[ \\t]*)*)?$","want":"want ports from 1 to 65535 separated by commas, e.g. 443,8443"}
CARPOOL_VIA: {"pattern":"^(1|t|T|TRUE|true|True|0|f|F|FALSE|false|False)?$","want":"want true or false"}
CARPOOL_RETRY_IDEMPOTENCY_KEY: {"pattern":"^(1|t|T|TRUE|true|True|0|f|F|FALSE|false|False)?$","want":"want true or false"}
CARPOOL_PRELOAD_DIR: {"pattern":"^(/.*)?$","want":"want an absolute path, e.g. /carpool"}
CARPOOL_BYPASS_PORTS: {"pattern":"^([ \\t]*0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3([0-5])))))[ \\t]*(,[ \\t]*0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3([0-5])))))[ \\t]*)*|off)?$","want":"want ports from 1 to 65535 separated by commas, e.g. 80,8080, or off"}
CARPOOL_DRAIN_DELAY: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
CARPOOL_DRAIN_TIMEOUT: {"pattern":"^(\\+?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+))?$","want":"want a duration of 0 or more, e.g. 500ms, 50s or 2m"}
{{- end }}

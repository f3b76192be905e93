################################################################################

# nginx['enable'] = true
# nginx['client_max_body_size'] = '250m'
# nginx['redirect_http_to_https'] = false
# nginx['redirect_http_to_https_port'] = 80
# nginx['ssl_certificate'] = "/etc/gitlab/ssl/#{node['fqdn']}.crt"
# nginx['ssl_certificate_key'] = "/etc/gitlab/ssl/#{node['fqdn']}.key"
# nginx['ssl_protocols'] = "TLSv1.2 TLSv1.3"
# nginx['listen_addresses'] = ['*', '[::]']
# nginx['listen_port'] = nil
# nginx['listen_https'] = nil
# nginx['proxy_set_headers'] = {
#  "Host" => "$http_host_with_default",
#  "X-Real-IP" => "$remote_addr"
# }

################################################################################
## Registry NGINX
################################################################################

##! The settings of the "GitLab NGINX" section can be set here too, below
##! `registry_nginx`. They are not inherited from there.
# registry_nginx['enable'] = false

# registry_nginx['proxy_set_headers'] = {
#  "Host" => "$http_host",
#  "X-Real-IP" => "$remote_addr",
#  "X-Forwarded-For" => "$proxy_add_x_forwarded_for",
#  "X-Forwarded-Proto" => "https",
#  "X-Forwarded-Ssl" => "on"
# }

##! The port when the registry shares the name of `external_url`
# registry_nginx['listen_port'] = 5050

################################################################################

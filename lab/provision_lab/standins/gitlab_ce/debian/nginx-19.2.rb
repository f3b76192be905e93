##! NGINX settings of the application are below `gitlab_rails['nginx']` since
##! 19.2; `nginx[...]` is deprecated, but still applied.
################################################################################

# nginx['enable'] = true
# gitlab_rails['nginx']['client_max_body_size'] = '0'
# gitlab_rails['nginx']['redirect_http_to_https'] = false
# gitlab_rails['nginx']['redirect_http_to_https_port'] = 80
# gitlab_rails['nginx']['ssl_certificate'] = "/etc/gitlab/ssl/#{node['fqdn']}.crt"
# gitlab_rails['nginx']['ssl_certificate_key'] = "/etc/gitlab/ssl/#{node['fqdn']}.key"
# gitlab_rails['nginx']['ssl_protocols'] = "TLSv1.2 TLSv1.3"
# gitlab_rails['nginx']['listen_addresses'] = ['*']
# gitlab_rails['nginx']['listen_port'] = nil
# gitlab_rails['nginx']['listen_https'] = nil
# gitlab_rails['nginx']['proxy_set_headers'] = {
#  "Host" => "$http_host_with_default",
#  "X-Real-IP" => "$remote_addr"
# }

################################################################################
## Registry NGINX
################################################################################

##! The settings of the "GitLab NGINX" section can be set here too, below
##! `registry['nginx']`. They are not inherited from there.
# registry['nginx']['enable'] = false

# registry['nginx']['proxy_set_headers'] = {
#  "Host" => "$http_host",
#  "X-Real-IP" => "$remote_addr",
#  "X-Forwarded-For" => "$proxy_add_x_forwarded_for",
#  "X-Forwarded-Proto" => "https",
#  "X-Forwarded-Ssl" => "on"
# }

##! The port when the registry shares the name of `external_url`
# registry['nginx']['listen_port'] = 5050

################################################################################

<?php

namespace App\Http\Middleware;

use Closure;
use Illuminate\Http\Request;

/** Tells in every answer what PHP itself says of the request's memory, in bytes. */
class MemoryHeaders
{
    public function handle(Request $request, Closure $next)
    {
        $response = $next($request);
        $response->headers->set('X-Memory-Peak', (string) memory_get_peak_usage());
        $response->headers->set('X-Memory-Real-Peak', (string) memory_get_peak_usage(true));
        $response->headers->set('X-Included-Files', (string) count(get_included_files()));

        return $response;
    }
}

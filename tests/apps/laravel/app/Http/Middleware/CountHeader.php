<?php

namespace App\Http\Middleware;

use App\Counts;
use Closure;
use Illuminate\Http\Request;

/** Tells in the answer what the application counted itself, if it was asked to. */
class CountHeader
{
    public function handle(Request $request, Closure $next)
    {
        if (! $request->hasHeader('X-Count')) {
            return $next($request);
        }
        Counts::begin();
        $response = $next($request);
        $response->headers->set('X-Counts', Counts::toJson());
        $facts = [
            'user_id' => auth()->hasUser() ? auth()->id() : null,
            'session_bytes' => strlen(serialize(session()->all())),
        ];
        // Right after PHP begins to end the request.
        register_shutdown_function(fn () => file_put_contents(storage_path('logs/facts.json'), json_encode($facts + [
            'classes' => count(get_declared_classes()),
            'files' => count(get_included_files()),
        ])."\n", FILE_APPEND));

        return $response;
    }
}
